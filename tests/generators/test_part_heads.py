import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xinc_captum.generators import FewShotHead, ProjectionHead, fit_head
from xinc_captum.generators.features import stack_maps


def maps():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 3, 3, generator=g), torch.randn(2, 4, 6, 6, generator=g)]


def test_the_papers_head_has_the_papers_weights():
    with torch.device("meta"):
        head = FewShotHead([13588], parts=10)
    assert [m.dilation for m in head.layers if isinstance(m, nn.Conv2d)] == [(d, d) for d in (1, 2, 1, 2, 1)]
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 1) == 15.8
    assert isinstance(head.layers[-1], nn.Conv2d), "the last one has no activation"


def test_the_head_uses_all_features_at_the_image_size():
    head = FewShotHead([5, 4], 3, widths=(6,), dilations=(2, 1))
    logits = head(maps(), (6, 6))
    first, last = (m for m in head.layers if isinstance(m, nn.Conv2d))
    by_hand = last(F.leaky_relu(first(stack_maps(maps(), (6, 6))), 0.2))
    assert torch.equal(logits, by_hand) and logits.shape == (2, 3, 6, 6)


def test_projecting_before_upsampling_is_projecting_after():
    head = ProjectionHead([5, 4], 3, width=7, dilations=(1, 2))
    weight = torch.cat([p.weight for p in head.projections], 1)
    bias = sum(p.bias for p in head.projections)
    after = head.layers(F.conv2d(stack_maps(maps(), (12, 12)), weight, bias))
    torch.testing.assert_close(head(maps(), (12, 12)), after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [FewShotHead, ProjectionHead])
def test_the_seed_determines_the_weights_alone(kind):
    state = torch.get_rng_state()
    one, same, other = (kind([2], 2, seed=s) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    first = [next(iter(h.parameters())) for h in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match="1 widths and 1 dilations; expected one dilation more"):
        FewShotHead([2], 2, widths=(4,), dilations=(1,))
    with pytest.raises(ValueError, match="at least two parts"):
        ProjectionHead([2], 1)
    with pytest.raises(ValueError, match="channels of at least one map"):
        FewShotHead([], 2)
    with pytest.raises(ValueError, match="dilations is empty"):
        ProjectionHead([2], 2, dilations=())
    with pytest.raises(ValueError, match=r"the maps have \(4, 5\) channels; this head was made for \(5, 4\)"):
        ProjectionHead([5, 4], 2)(maps()[::-1], (6, 6))


def blobs(n=6):
    """Features that say at two resolutions where a blob is, in noise; labels of the finer one's size."""
    g = torch.Generator().manual_seed(0)
    places = torch.randint(2, 10, (n, 2), generator=g)
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    inside = ((rows - places[:, :1, None]) ** 2 + (columns - places[:, 1:, None]) ** 2 <= 6).float()[:, None]
    coarse = torch.nn.functional.avg_pool2d(inside, 2)
    return [
        torch.cat([coarse, torch.randn(n, 2, 6, 6, generator=g)], 1),
        torch.cat([inside + 0.3 * torch.randn(n, 1, 12, 12, generator=g), torch.randn(n, 1, 12, 12, generator=g)], 1),
    ], inside[:, 0].long()


@pytest.mark.parametrize(
    "head", [FewShotHead([3, 2], 2, widths=(8,), dilations=(1, 2)), ProjectionHead([3, 2], 2, width=8)]
)
def test_a_few_labelled_images_generalize(head):
    maps, labels = blobs(9)
    losses = fit_head(
        head, [m[:6] for m in maps], labels[:6], epochs=15, learning_rate=1e-2, generator=torch.Generator()
    )
    assert losses.shape == (15,) and losses[-1] < 0.3 * losses[0]
    found = head([m[6:] for m in maps], (12, 12)).argmax(1) == 1
    truth = labels[6:] == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.65
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def test_strokes_suffice_and_unlabelled_pixels_are_ignored():
    maps, labels = blobs()
    strokes = labels.clone()
    strokes[:, ::3] = -7
    strokes[5] = -1
    trained = []
    for wrong in (0, 1):
        changed = [m.clone() for m in maps]
        changed[1][5] += wrong  # the picture without labels
        head = ProjectionHead([3, 2], 2, width=4)
        losses = fit_head(
            head, changed, strokes, epochs=3, weight_decay=0.0, generator=torch.Generator().manual_seed(0)
        )
        assert losses.isfinite().all()
        trained.append(torch.cat([p.flatten() for p in head.parameters()]))
    torch.testing.assert_close(*trained)


def test_part_training_mismatched_arguments_raise_errors():
    maps, labels = blobs(2)
    head = ProjectionHead([3, 2], 3)
    with pytest.raises(ValueError, match=r"the labels have parts \[0, 1\]; the head has parts 0 to 2"):
        fit_head(head, maps, labels, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"the labels have parts \[2, 3\]"):
        fit_head(head, maps, labels + 2, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"labels are torch.float32 .* for maps of 2 images"):
        fit_head(head, maps, labels.float(), generator=torch.Generator())
    with pytest.raises(ValueError, match=r"expected integers \(2, H, W\)"):
        fit_head(head, maps, labels[:1], generator=torch.Generator())
