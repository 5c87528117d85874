import torch

from xinc_captum.attributions.linking.sweeping import agreement


def test_units_share_batches_and_answer_as_alone(digits):
    alive = digits.link.alive.nonzero()[:5, 0].tolist()
    seen = []
    handle = digits.net[0].register_forward_hook(lambda m, a, o: seen.append(len(o)))
    try:
        many = list(digits.units.sweeps(digits.pictures(3), alive, steps=4, internal_batch_size=24))
    finally:
        handle.remove()
    assert max(seen) <= 24 and seen.count(24) == 2, "two units of twelve frames in a batch"
    for unit, one in zip(alive, many, strict=True):
        alone = digits.units.sweep(digits.pictures(3), unit, steps=4)
        torch.testing.assert_close(alone.images, one.images, atol=1e-6, rtol=1e-5)
        assert alone.fidelity.rank == one.fidelity.rank


def test_nothing_is_drawn_before_it_is_asked_for(digits):
    seen = []
    handle = digits.net[0].register_forward_hook(lambda m, a, o: seen.append(len(o)))
    try:
        stream = digits.units.sweeps(digits.pictures(3), internal_batch_size=15)
        before = len(seen)
        next(stream)
        assert before <= 2 and len(seen) == before + 1
    finally:
        handle.remove()


def test_replace_starts_from_the_input_and_anchored_from_its_picture(digits):
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        r = digits.net[:5](x)[:, digits.unit]
    anchored, replaced = (digits.units.sweep(x, digits.unit, [0.0, 1.0], mode=m) for m in ("anchored", "replace"))
    torch.testing.assert_close(replaced.own, r.double())
    torch.testing.assert_close(anchored.own, anchored.base_representations[:, digits.unit].double())
    step = digits.link.direction([digits.unit])[0].float()
    base = digits.link(digits.net[:5](x).double()).float().detach()
    for found in (anchored, replaced):
        expected = base + (1.0 - found.own.float())[:, None] * step
        torch.testing.assert_close(found.latents[:, 1], expected, atol=1e-5, rtol=1e-5)


def test_agreement_of_a_single_logit_is_of_its_sides():
    scores = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]])
    assert agreement(scores, scores) == 1 and agreement(-scores, scores) == 0
    assert agreement(torch.tensor([[0.1], [-0.2], [-4.0], [-3.0]]), scores) == 0.75
    assert agreement(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]])) == 1
