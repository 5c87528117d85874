"""One step's gradients against the released code's layout, written down anew: none are recorded."""

import pytest
import torch
import torch.nn.functional as F

from .conftest import ours


def original_loss(state, recorded):
    """Mean squared error of what is drawn, from the released code's own tensors: fused attention, bias rows, columns."""
    image = recorded["image"].to(state["wtokens"])
    x = F.unfold(image, 2, stride=2).mT @ state["tokenizer.prefc.weight"].mT + state["tokenizer.prefc.bias"]
    x = x + state["tokenizer.posemb"]
    patches = x.shape[1]
    x = torch.cat([x, state["wtokens"].expand(2, -1, -1)], 1)
    for block in (0, 1):
        of = lambda name, b=block: state[f"transformer_encoder.layers.{b}.{name}"]
        y = F.layer_norm(x, (24,), of("0.norm.weight"), of("0.norm.bias"))
        q, kv = y @ of("0.fn.to_q.weight").mT, y @ of("0.fn.to_kv.weight").mT
        q, k, v = (t.reshape(2, -1, 3, 8).transpose(1, 2) for t in (q, *kv.chunk(2, -1)))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, -1, 24)
        x = x + F.linear(y, of("0.fn.to_out.0.weight"), of("0.fn.to_out.0.bias"))
        y = F.layer_norm(x, (24,), of("1.norm.weight"), of("1.norm.bias"))
        y = F.gelu(F.linear(y, of("1.fn.net.0.weight"), of("1.fn.net.0.bias")))
        x = x + F.linear(y, of("1.fn.net.3.weight"), of("1.fn.net.3.bias"))
    h = recorded["hyponet/posenc"].to(x)
    for i, (start, stop) in enumerate(recorded["wtoken_ranges"].tolist()):
        of = lambda name, i=i: state[f"wtoken_postfc.wb{i}.{name}"]
        token = x[:, patches + start : patches + stop]
        token = F.linear(F.layer_norm(token, (24,), of("0.weight"), of("0.bias")), of("1.weight"), of("1.bias"))
        base = state[f"base_params.wb{i}"]
        columns = [base[:-1, j] * token[:, j % (stop - start)] for j in range(base.shape[1])]
        h = h @ torch.stack([c / c.norm(dim=1, keepdim=True) for c in columns], 2) + base[-1]
        h = h.relu() if i < 2 else h + 0.5
    return (h - image.flatten(2).mT).square().mean()


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_one_steps_gradients_are_the_originals(original, recorded, dtype, relative):
    state = {k.removeprefix("state/"): v.to(dtype) for k, v in recorded.items() if k.startswith("state/")}
    leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
    recorded = recorded | {"hyponet/posenc": original.double().encoded((8, 8)).expand(2, -1, -1)}
    loss = original_loss(leaves, recorded)
    gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    expected = ours({f"state/{name}": value for name, value in gradients.items()})
    model = original.to(dtype)
    found_loss = F.mse_loss(model(recorded["image"].to(dtype)), recorded["image"].to(dtype))
    torch.testing.assert_close(found_loss, loss.detach().to(dtype), atol=0, rtol=1e-5)
    found_loss.backward()
    assert set(expected) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert expected[name].norm() > 0, name
        assert (parameter.grad - expected[name]).norm() <= relative * expected[name].norm(), name
