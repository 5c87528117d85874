import pytest
import torch
from torch import nn

from xinc_captum.inr.trainable import trainable


def test_those_that_want_gradients_in_order():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    assert [id(p) for p in trainable(model)] == [id(p) for p in (model[0].weight, *model[1].parameters())]
    assert len(trainable(model.bfloat16())) == len(trainable(model.double())) == 3


def made_under_inference_mode():
    with torch.inference_mode():
        return nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: nn.Linear(1, 1).requires_grad_(False),
            r"no parameter of this Linear wants a gradient; call requires_gr",
        ),
        (lambda: nn.ReLU(), "no parameter of this ReLU wants a gradient"),
        (
            lambda: nn.Linear(1, 1, device="meta"),
            "this Linear is on the meta device, where nothing has values; load it",
        ),
        (made_under_inference_mode, r"this Linear was made under torch.inference_mode\(\), .*; make it outside"),
        (
            lambda: nn.Linear(1, 1).half(),
            "this Linear is torch.float16, in which steps of Adam are NaN; fit it in float32",
        ),
    ],
)
def test_what_cannot_be_trained(make, text):
    with pytest.raises(ValueError, match=text):
        trainable(make())


def test_steps_of_adam_are_nan_in_float16():
    """What the error is about, not only that there is one."""
    model = nn.Linear(1, 1, bias=False).half()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.weight.grad = torch.full_like(model.weight, 1e-5)
    optimizer.step()
    assert not model.weight.isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(value):
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.bias[1] = value
    with pytest.raises(
        ValueError, match="'bias' of this Linear hold NaN or infinite values, from which training cannot"
    ):
        trainable(model)
