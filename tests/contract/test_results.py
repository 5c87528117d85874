"""Results: plain tensors, independent of the batch, for every form of target; and refused input."""

import copy

import pytest
import torch
from contract.methods import attribute, every, having
from torch import nn


@every
def test_results_are_plain_tensors(method, net, x, found):
    before = found(net)
    answer = attribute(method, net, x)
    assert answer.shape == method.shape
    assert answer.is_contiguous() and not answer.requires_grad and answer.dtype == torch.float32
    assert answer.abs().sum() > 0
    assert before.differences(net) == []
    assert not x.requires_grad


@every
def test_row_by_row_equals_batch(method, net, x):
    if "looks at all rows" in method.promises:
        pytest.skip("a mean over all rows is this method's definition")
    x = torch.rand(5, 3, 6, 6)
    whole = attribute(method, net, x)
    rows = torch.cat([attribute(method, net, x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(whole, rows, atol=1e-6, rtol=1e-5)


@every
def test_chunks_equal_batch(method, net, x):
    x = torch.rand(5, 3, 6, 6)
    small = {"memory_budget": 4000} if "canvas" in method.promises else {"internal_batch_size": 2}
    torch.testing.assert_close(attribute(method, net, x, **small), attribute(method, net, x), atol=1e-6, rtol=1e-5)


@every
def test_the_same_call_gives_the_same_bits(method, net, x):
    assert torch.equal(attribute(method, net, x), attribute(method, net, x))


@every
@pytest.mark.parametrize(
    "target", [1, torch.tensor(1), torch.tensor([1]), [1, 1], torch.tensor([1, 1]), (1,), [(1,), (1,)]], ids=repr
)
def test_every_form_of_target(method, net, x, target):
    if "ignores the output" in method.promises:
        pytest.skip("what it explains is a unit, not an output")
    if "unscaled" in method.promises and target == [(1,), (1,)]:
        pytest.skip("the paper's rule reads targets as channels: a list of tuples is not one")
    torch.testing.assert_close(attribute(method, net, x, target=target), attribute(method, net, x, target=1))


@every
def test_tuple_inputs_and_forward_arguments(method, net, x):
    if "unscaled" in method.promises:
        pytest.skip("the paper's rule stops at the last Linear, before the scale is applied")
    if "images" in method.promises:
        pytest.skip("it takes one tensor of images; forward arguments have a test of their own")
    two = nn.ModuleDict({"net": net})
    forward = lambda a, b, scale, word: two["net"](a + b, scale)
    scale = torch.tensor([[2.0], [3.0]])
    answer = method.make(forward, net.get_submodule(method.layer)).attribute(
        (x, x), target=1, additional_forward_args=(scale, "word"), **method.kwargs
    )
    alone = attribute(method, net, 2 * x)
    torch.testing.assert_close(answer, alone * scale.reshape(2, *[1] * (alone.dim() - 1)), atol=1e-6, rtol=1e-5)


@having("delta")
def test_the_delta_is_one_number_per_sample(method, net, x):
    assert method.on(net).has_convergence_delta()
    answer, delta = attribute(method, net, x, return_convergence_delta=True)
    assert delta.shape == (2,)
    torch.testing.assert_close(answer, attribute(method, net, x))
    with torch.no_grad():
        full = net(x)[:, 1]
        silent = net.fc.bias[1].expand(2)  # everything between relu and fc is linear without bias
    complete = method.name in ("NeuronCanvas secant", "NeuronCanvas xinc")
    if "looks at all rows" not in method.promises:
        expected = answer.flatten(1).sum(1) - (full if complete else full - silent)
        torch.testing.assert_close(delta, expected, atol=1e-6, rtol=1e-5)
        assert delta.abs().max() < 1e-5, "a linear tail is complete under every rule"


@every
@pytest.mark.parametrize("target", [3, (0, 1), [0], "cat"])
def test_impossible_targets(method, net, x, target, found):
    if "ignores the output" in method.promises:
        pytest.skip("what it explains is a unit, not an output")
    before = found(net)
    with pytest.raises(ValueError, match="target"):
        attribute(method, net, x, target=target)
    assert before.differences(net) == []


@every
def test_empty_batch(method, net):
    with pytest.raises(ValueError, match="no rows to explain"):
        attribute(method, net, torch.zeros(0, 3, 6, 6))


@every
def test_a_row_of_nan_does_not_affect_others(method, net, x):
    if "looks at all rows" in method.promises:
        pytest.skip("a mean over all rows is this method's definition")
    plain = attribute(method, net, x)
    spoilt = x.clone()
    spoilt[1] = float("nan")
    if "refuses nan" in method.promises:
        with pytest.raises(ValueError, match="images hold NaN"):
            attribute(method, net, spoilt)
        return
    answer = attribute(method, net, spoilt)
    torch.testing.assert_close(answer[0], plain[0])
    assert answer[1].isnan().any()


@every
def test_names_copies_and_types(method, net, x):
    built = method.on(net)
    assert built.get_name() == "".join(f" {c}" if c.isupper() else c for c in type(built).__name__).strip()
    if "input_shaped" not in method.promises:
        assert built.multiplies_by_inputs is True
    assert hasattr(type(built).attribute, "__wrapped__")
    torch.testing.assert_close(copy.deepcopy(built).attribute(x, **method.of(1)), attribute(method, net, x))
