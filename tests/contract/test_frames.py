"""The contract for rows that are frames, on a convolutional decoder."""

import copy

import pytest
import torch
from contract.dispatch import Doubles, Syncs
from contract.methods import Broken, Method

from xinc_captum import Ablation, NeuronCanvas


def decoder_canvas(rule, layer, unit="neuron", at_input=False):
    return Method(
        f"{rule if isinstance(rule, str) else 'mean ablation'} {unit}s at {layer}",
        lambda model, layer_=layer, **kwargs: NeuronCanvas(model, layer_, rule=rule, unit=unit, **kwargs),
        layer=layer,
        kwargs={"attribute_to_layer_input": True} if at_input else {},
    )


FRAMES = [
    *(decoder_canvas(r, "blocks.0") for r in ("tangent", "secant", "ablation", Ablation("mean"))),
    *(decoder_canvas(r, "blocks.1.0", "pair") for r in ("tangent", "secant", "ablation")),
    decoder_canvas("xinc", "blocks.0.0", "pair", at_input=True),
    decoder_canvas("xinc", "head", at_input=True),
]


frames = pytest.mark.parametrize("method", FRAMES, ids=lambda m: m.name)


def draw(method, model, t, **kwargs):
    return method.make(model).attribute(t, **method.kwargs, **kwargs)


@frames
def test_frames_results_are_plain_tensors(method, decoder, found):
    model, t = decoder
    before = found(model)
    answer = draw(method, model, t)
    assert answer.shape[0] == 3 and answer.shape[-2:] == (8, 12)
    assert answer.is_contiguous() and not answer.requires_grad and answer.dtype == torch.float64
    assert answer.abs().sum() > 0
    assert torch.equal(draw(method, model, t), answer)
    assert before.differences(model) == []


@frames
def test_frames_one_by_one_in_chunks_and_wrapped(method, decoder):
    model, t = decoder
    whole = draw(method, model, t)
    close = lambda a: torch.testing.assert_close(a, whole, atol=1e-12, rtol=1e-9)
    if "mean" not in method.name:
        close(torch.cat([draw(method, model, t[i : i + 1]) for i in range(3)]))
    close(
        draw(method, model, t, memory_budget=4000, **({} if "pair" in method.name else {"perturbations_per_eval": 2}))
    )
    close(method.make(lambda x: model(x), model.get_submodule(method.layer)).attribute(t, **method.kwargs))
    close(
        method.make(lambda x: {"y": model(x)}, model.get_submodule(method.layer), output_fn=lambda o: o["y"]).attribute(
            t, **method.kwargs
        )
    )
    close(draw(method, torch.compile(model, backend="eager"), t))
    with torch.inference_mode():
        close(draw(method, model, t))


@frames
def test_frames_in_other_dtypes(method, decoder):
    model, t = decoder
    plain = draw(method, model, t)
    single = draw(method, copy.deepcopy(model).float(), t.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), plain, atol=1e-6, rtol=1e-4)
    half = draw(method, copy.deepcopy(model).bfloat16(), t.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), plain, atol=0.05, rtol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = draw(method, copy.deepcopy(model).float(), t.float())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.double(), plain, atol=0.05, rtol=0.1)


@frames
@pytest.mark.parametrize("where", ["stem", "blocks.0.1", "head"])
def test_frames_state_is_restored_when_any_submodule_raises(method, decoder, found, where):
    model, t = decoder

    def raising(*_):
        raise Broken

    model.get_submodule(where).register_forward_hook(raising)
    before = found(model)
    with pytest.raises(Broken):
        draw(method, model, t)
    assert before.differences(model) == []


@frames
def test_frames_never_wait_for_the_device(method, decoder):
    model, t = decoder
    with Syncs() as mode:
        draw(method, model, t)
    assert mode.seen == []


@frames
def test_frames_of_a_float32_model_need_no_float64(method, decoder):
    model, t = decoder[0].float(), decoder[1].float()
    with Doubles() as mode:
        draw(method, model, t)
    assert mode.seen == []


@pytest.mark.cuda
@frames
def test_frames_on_a_gpu(method, decoder):
    model, t = decoder
    plain = draw(method, model, t)
    there = draw(method, copy.deepcopy(model).cuda(), t.cuda())
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), plain, atol=1e-9, rtol=1e-6)
