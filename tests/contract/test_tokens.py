"""The contract for rows that are images with their own networks, on a Trans-INR."""

import copy

import pytest
import torch
from captum.attr import NoiseTunnel
from captum.metrics import sensitivity_max
from contract.dispatch import Doubles, Syncs
from contract.methods import Broken
from torch import nn

from xinc_captum import LayerError, TokenContribution, TransINR, as_explanation

TOKENS = ["token", "modulation", "patch", "composed"]


tokens = pytest.mark.parametrize("level", TOKENS)


@pytest.fixture
def writer():
    """Small, and with means that are not those of the pictures it is asked about."""
    model = TransINR(3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, count=2, groups=3, seed=0)
    model.mean_image.uniform_(generator=torch.Generator().manual_seed(1))
    for mean in model.mean_modulations:
        mean.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    return model.eval()


def told(level, model, x, target=1, **kwargs):
    method = TokenContribution(model, "patch" if level == "composed" else level)
    call = method.composed if level == "composed" else method.attribute
    return call(x, target=target, **{"n_steps": 2, **kwargs})


SHAPES = {"token": (2, 4, 6, 6), "modulation": (2, 10, 6, 6), "patch": (2, 5, 6, 6), "composed": (2, 4, 9, 6, 6)}


@tokens
def test_tokens_results_are_plain_tensors(level, writer, x, found):
    before = found(writer)
    answer = told(level, writer, x)
    assert answer.shape == SHAPES[level]
    assert answer.is_contiguous() and not answer.requires_grad and answer.dtype == torch.float32
    assert answer.abs().sum() > 0
    assert torch.equal(told(level, writer, x), answer)
    assert before.differences(writer) == [] and not x.requires_grad


@tokens
def test_tokens_row_by_row_and_in_chunks(level, writer):
    x = torch.rand(5, 3, 6, 6)
    whole = told(level, writer, x)
    close = lambda a: torch.testing.assert_close(a, whole, atol=1e-6, rtol=1e-5)
    close(torch.cat([told(level, writer, x[i : i + 1]) for i in range(5)]))
    close(told(level, writer, x, internal_batch_size=2))
    close(told(level, writer, (x,)))


@tokens
@pytest.mark.parametrize(
    "target", [1, torch.tensor(1), torch.tensor([1]), [1, 1], torch.tensor([1, 1]), (1,), [(1,), (1,)]], ids=repr
)
def test_tokens_every_form_of_target(level, writer, x, target):
    torch.testing.assert_close(told(level, writer, x, target), told(level, writer, x))


@tokens
def test_tokens_targets_are_channels_rows_or_pixels(level, writer, x):
    whole = told(level, writer, x, None)
    assert whole.shape == (*SHAPES[level][:-2], 3, 6, 6)
    torch.testing.assert_close(told(level, writer, x, 2), whole[..., 2, :, :])
    torch.testing.assert_close(
        told(level, writer, x, [2, 0]), torch.stack([whole[0, ..., 2, :, :], whole[1, ..., 0, :, :]])
    )
    torch.testing.assert_close(told(level, writer, x, (2, 3, 4)), whole[..., 2, 3, 4])
    for wrong in (3, [0], [0, 3], torch.tensor([0, 3]), "cat"):
        with pytest.raises(ValueError, match="target"):
            told(level, writer, x, wrong)


@pytest.mark.parametrize("level", TOKENS[:3])
def test_tokens_delta(level, writer, x):
    assert TokenContribution(writer, level).has_convergence_delta()
    answer, delta = told(level, writer, x, return_convergence_delta=True)
    with torch.no_grad():
        drawn = writer(x)[:, 1]
    torch.testing.assert_close(delta, (answer.sum(1) - drawn).flatten(1).sum(1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("level", TOKENS[:3])
@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_tokens_line_1_noise_tunnel(level, writer, x, kind):
    tunnel = NoiseTunnel(TokenContribution(writer, level))
    few = {} if level == "token" else {"n_steps": 2}
    answer = tunnel.attribute(
        x.clamp(0.3, 0.7), nt_type=kind, nt_samples=5, nt_samples_batch_size=2, stdevs=0.02, target=[1, 0], **few
    )
    assert answer.shape == SHAPES[level] and torch.isfinite(answer).all() and answer.abs().sum() > 0


@pytest.mark.parametrize("level", TOKENS[:3])
def test_tokens_line_2_sensitivity(level, writer, x):
    explain = as_explanation(TokenContribution(writer, level))
    few = {} if level == "token" else {"n_steps": 2}
    score = sensitivity_max(explain, x.clamp(0.1, 0.9), n_perturb_samples=2, target=1, **few)
    assert score.shape == (2,) and (score > 0).all()


@tokens
def test_tokens_lines_14_and_15_parallel_and_compiled(level, writer, x):
    plain = told(level, writer, x)
    torch.testing.assert_close(told(level, nn.DataParallel(writer), x), plain)
    compiled = torch.compile(writer, backend="eager")
    compiled(x)
    torch.testing.assert_close(told(level, compiled, x), plain)
    if level != "composed":
        by_ids = TokenContribution(nn.DataParallel(writer), level, [0])
        torch.testing.assert_close(by_ids.attribute(x, 1, n_steps=2), plain)


@tokens
def test_tokens_line_16_traced_models_are_refused(level, writer, x):
    with pytest.raises(LayerError, match="scripted and traced models give no access to their weights"):
        told(level, torch.jit.trace(writer, x), x)


@tokens
def test_tokens_line_17_dtypes(level, writer, x):
    plain = told(level, writer, x, n_steps=16)
    double = told(level, copy.deepcopy(writer).double(), x.double(), n_steps=16)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), plain, atol=1e-5, rtol=1e-4)
    half = told(level, copy.deepcopy(writer).bfloat16(), x.bfloat16(), n_steps=16)
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        mixed = told(level, writer, x, n_steps=16)
        assert torch.is_autocast_enabled("cpu")
    assert mixed.dtype == torch.float32
    for other in (half.float(), mixed):  # rounding flips gates, so a pixel may jump; the whole may not
        assert (other - plain).abs().sum() < 0.1 * plain.abs().sum()


@tokens
@pytest.mark.parametrize("kind", ["channels_last", "strided", "expanded"])
def test_tokens_line_18_memory_formats(level, writer, x, kind):
    other = {
        "channels_last": x.to(memory_format=torch.channels_last),
        "strided": torch.stack([x, x], -1)[..., 0],
        "expanded": x[:1].expand(2, -1, -1, -1),
    }[kind]
    answer = told(level, writer, other)
    assert answer.is_contiguous()
    torch.testing.assert_close(answer, told(level, writer, other.contiguous()), atol=1e-6, rtol=1e-5)


@tokens
def test_tokens_line_19_modes(level, writer, x, found):
    plain = told(level, writer, x)
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            again = told(level, writer, torch.rand_like(x).copy_(x))
            assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
        torch.testing.assert_close(again, plain)
    with torch.inference_mode():
        there = copy.deepcopy(writer)
    torch.testing.assert_close(told(level, there, x), plain)
    writer(x).sum().backward()
    writer.requires_grad_(False)
    writer.writer.base.output.requires_grad_(True)
    before = found(writer)
    torch.testing.assert_close(told(level, writer, x), plain)
    assert before.differences(writer) == []


@tokens
@pytest.mark.parametrize("where", ["tokens", "writer.encoder.blocks.0.attention", "writer.heads.1"])
@pytest.mark.parametrize("fault", [Broken, KeyboardInterrupt])
def test_tokens_state_is_restored_when_any_submodule_raises(level, writer, x, found, where, fault):
    writer.train()
    writer(x).sum().backward()

    def raising(*_):
        raise fault

    handle = writer.get_submodule(where).register_forward_hook(raising)
    before = found(writer)
    with pytest.raises(fault):
        told(level, writer, x)
    assert before.differences(writer) == []
    assert list(writer.get_submodule(where)._forward_hooks) == [handle.id]


@tokens
def test_tokens_empty_and_spoilt_batches(level, writer, x):
    with pytest.raises(ValueError, match="no rows to explain"):
        told(level, writer, torch.zeros(0, 3, 6, 6))
    x[1] = float("nan")
    with pytest.raises(ValueError, match="images hold NaN"):
        told(level, writer, x)


@pytest.mark.parametrize("level", TOKENS[:3])
def test_tokens_names_copies_and_types(level, writer, x):
    built = TokenContribution(writer, level)
    assert built.get_name() == "Token Contribution" and built.multiplies_by_inputs is True
    assert hasattr(TokenContribution.attribute, "__wrapped__")
    torch.testing.assert_close(copy.deepcopy(built).attribute(x, n_steps=2), built.attribute(x, n_steps=2))


@tokens
def test_tokens_hot_paths_never_wait_for_the_device(level, writer, x):
    counts = []
    for rows, steps in ((x[:1], 2), (x.repeat(3, 1, 1, 1), 2), (x, 5)):
        with Syncs() as mode:
            method = TokenContribution(writer, "patch" if level == "composed" else level)
            (method.composed if level == "composed" else method.attribute)(rows, n_steps=steps)
        counts.append(len(mode.seen))
    assert counts[0] == counts[1] == counts[2], "the images are looked at once, at the border"


@tokens
def test_tokens_of_a_float32_model_need_no_float64(level, writer, x):
    with Doubles() as mode:
        told(level, writer, x)
    assert mode.seen == []


@pytest.mark.cuda
@tokens
def test_tokens_on_a_gpu(level, writer, x, found):
    plain = told(level, writer, x)
    there = copy.deepcopy(writer).cuda()
    before = found(there)
    answer = told(level, there, x.cuda())
    assert answer.device.type == "cuda"
    torch.testing.assert_close(answer.cpu(), plain, atol=1e-4, rtol=1e-3)
    assert before.differences(there) == []
