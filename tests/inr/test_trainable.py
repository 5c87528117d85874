import pytest
import torch
from torch import nn

from xinc_captum.inr.trainable import check_finite, trainable


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


def test_parameters_that_are_not_finite():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    check_finite(model)
    with torch.no_grad():
        model[1].bias[0] = float("inf")
    text = r"the parameter 1.bias of this Sequential holds NaN or infinite values \(1 of 4 parameters do\)"
    for call in (check_finite, trainable):
        with pytest.raises(ValueError, match=text):
            call(model)
    check_finite(model, [model[1].bias])
    with pytest.raises(ValueError, match="this Linear is on the meta device"):
        check_finite(nn.Linear(2, 2, device="meta"))
