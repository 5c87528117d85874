import pytest
import torch
import torch.nn.functional as F

from xinc_captum.attributions.canvas.rules.operations import AFFINE, BILINEAR, EVALUATION_ONLY, POINTWISE, plain_name


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (torch.Tensor.add_, ("add", True)),
        (torch.Tensor.__iadd__, ("add", True)),
        (torch.Tensor.__radd__, ("add", False)),
        (torch.Tensor.__mul__, ("mul", False)),
        (torch.Tensor.__truediv__, ("div", False)),
        (torch.Tensor.__getitem__, ("getitem", False)),
        (torch.Tensor.shape.__get__, ("shape", False)),
        (F.relu, ("relu", False)),
        (F.relu_, ("relu", True)),
        (torch.sin, ("sin", False)),
    ],
)
def test_names(func, name):
    assert plain_name(func) == name


def test_no_operation_is_in_two_tables():
    tables = [AFFINE, BILINEAR, POINTWISE, EVALUATION_ONLY]
    assert sum(map(len, tables)) == len(frozenset().union(*tables))


@pytest.mark.parametrize(
    "name", sorted(POINTWISE - {"prelu", "threshold", "pow", "clamp", "clip", "clamp_min", "clamp_max"})
)
def test_pointwise_operations_are_pointwise_and_finite_at_zero(name):
    func = getattr(torch, name, None) or getattr(F, name)
    z = torch.tensor([0.3, -0.2, 0.0])
    z = z.abs() if name in {"sqrt"} else z
    whole = func(z)
    assert torch.allclose(whole, torch.stack([func(one) for one in z])), "each element alone"
    assert torch.isfinite(func(torch.zeros(1))).all() or name in {"acosh"}


def test_functions_are_listed_under_the_names_that_torch_dispatches():
    seen = []

    class Names(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(plain_name(func)[0])
            return func(*args, **(kwargs or {}))

    x = torch.rand(2, 2)
    with Names():
        F.logsigmoid(x), F.threshold(x, 0.1, 0.0)
    assert seen == ["logsigmoid", "threshold"]
