import pytest
import torch

from xinc_captum.generators import FewShotHead, ProjectionHead, fit_head


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
def test_a_few_pictures_teach_it_the_others(head):
    maps, labels = blobs(9)
    losses = fit_head(
        head, [m[:6] for m in maps], labels[:6], epochs=15, learning_rate=1e-2, generator=torch.Generator()
    )
    assert losses.shape == (15,) and losses[-1] < 0.3 * losses[0]
    found = head([m[6:] for m in maps], (12, 12)).argmax(1) == 1
    truth = labels[6:] == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.65
    assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def test_strokes_are_enough_and_unlabelled_pixels_teach_nothing():
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


def test_what_does_not_fit_is_said():
    maps, labels = blobs(2)
    head = ProjectionHead([3, 2], 3)
    with pytest.raises(ValueError, match=r"the labels name parts \[0, 1\]; the head has parts 0 to 2"):
        fit_head(head, maps, labels, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"the labels name parts \[2, 3\]"):
        fit_head(head, maps, labels + 2, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"labels are torch.float32 .* for maps of 2 pictures"):
        fit_head(head, maps, labels.float(), generator=torch.Generator())
    with pytest.raises(ValueError, match=r"wanted whole numbers \(2, H, W\)"):
        fit_head(head, maps, labels[:1], generator=torch.Generator())
