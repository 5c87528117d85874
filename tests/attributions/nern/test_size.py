import math

import pytest
import torch
from torch import nn

from xinc_captum.attributions.nern import NeRN, compress, quantize
from xinc_captum.attributions.nern.size import pack_integers, round_weights


@pytest.mark.parametrize("permutation", ["cross-filter", "in-filter", "none"])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_report_equals_the_file_size(mixed, permutation, dtype, tmp_path):
    nern = NeRN(mixed, hidden=7, levels=5, permutation=permutation)
    report = nern.size_report(dtype=dtype)
    assert report.total == nern.save(tmp_path / "a.safetensors", dtype=dtype).stat().st_size
    weights = sum(p.numel() for p in nern.predictor.parameters())
    assert report.parameters == weights and report.predictor == weights * (2 if dtype else 4)
    kept = sum(t.numel() * t.element_size() for n, t in mixed.state_dict().items()) - 4 * report.represented
    assert report.kept == kept and report.represented == 4 * 2 * 25 + 6 * 4 * 3 + 6 * 9 + 5 * 6
    bits = {"none": 0, "cross-filter": 8 * 3 + 24 * 5 + 6 * 3 + 30 * 5}
    if permutation in bits:
        assert math.isclose(report.permutation, bits[permutation] / 8, abs_tol=4)
    assert report.header > 500


def test_int8_equals_hand_computed_values():
    target = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False))
    report = NeRN(target, hidden=4).size_report()
    assert 0 < report.int8 - (8 * 4 * 9 + 8 * 4) < 200, "integers, scales, header"
    assert report.target > 4 * 8 * 4 * 9
    assert report.int8_relative_error < 0.01
    assert report.int8_all == report.int8, "there are no other weights"


def test_int8_of_all_weights_equals_hand_computed_values():
    """The NeRN replaces the convolution alone; a file in int8 would not stop there."""
    target = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(64, 50))
    report = NeRN(target, hidden=4).size_report()
    convolution, linear, small = 8 * 4 * 9, 50 * 64, 4 * (8 + 4 * 8 + 50) + 8  # biases, batch norm, its int64 counter
    assert 0 < report.int8 - (convolution + 4 * 8 + 4 * linear + small) < 800, "the linear layer is float32"
    assert 0 < report.int8_all - (convolution + linear + 4 * (8 + 50) + small) < 900
    assert 0 < report.int8_all_relative_error < 0.01


def test_shared_weights_are_counted_once():
    linear = nn.Linear(6, 6)
    target = nn.Sequential(nn.Conv2d(2, 2, 3, bias=False), nn.Flatten(), linear, nn.ReLU(), linear)
    found = quantize(target, bits=8, all_weights=True)
    assert 0 < found.bytes - (2 * 2 * 9 + 4 * 2 + 36 + 4 * 6 + 2 * 4 * 6) < 700
    weight = found.model[2].weight
    assert weight is found.model[4].weight and not torch.equal(weight, linear.weight)
    torch.testing.assert_close(weight, linear.weight, rtol=0, atol=float(linear.weight.abs().max()) / 254 * 1.01)


def test_report_text_has_errors(mixed):
    nern = NeRN(mixed, hidden=4)
    text = str(nern.size_report())
    assert f"weight error {nern.relative_error():.4f}" in text
    assert [line.split(":")[0].split(" ")[0] for line in text.splitlines()] == ["target", "NeRN", *["int8,"] * 2]
    assert "\nint8, represented weights only: " in text and "\nint8, all weights: " in text
    assert text.count("agreement not measured (give size_report pictures)") == 4


def answering_alike(model, target, images):
    with torch.no_grad():
        return float((model(images).argmax(1) == target(images).argmax(1)).float().mean())


def test_agreement_equals_that_of_the_rebuilt_networks(mixed, make_drawn, found):
    nern = make_drawn(NeRN(mixed, hidden=8, levels=6))
    images = 3 * torch.randn(40, 2, 6, 6)
    mixed.train()
    before = found(mixed)
    report = nern.size_report(images)
    assert before.differences(mixed) == [] and mixed.training
    mixed.eval()
    assert report.agreement == pytest.approx(answering_alike(nern.rebuild().eval(), mixed, images))
    assert report.int8_agreement == pytest.approx(answering_alike(quantize(mixed).model, mixed, images))
    everything = quantize(mixed, all_weights=True).model
    assert report.int8_all_agreement == pytest.approx(answering_alike(everything, mixed, images))
    assert report.agreement < report.int8_agreement, "drawn, never fitted"
    lines = str(report).splitlines()
    assert lines[0].endswith("agrees with the target on 100.0% of 40 pictures")
    assert lines[1].endswith(
        f"{report.relative_error:.4f}, agrees with the target on {report.agreement:.1%} of 40 pictures"
    )
    assert lines[2].endswith(f"agrees with the target on {report.int8_agreement:.1%} of 40 pictures")
    assert lines[3].endswith(f"agrees with the target on {report.int8_all_agreement:.1%} of 40 pictures")


def test_invalid_images_are_refused(mixed):
    with pytest.raises(ValueError, match="images hold NaN or infinite values in 2 of 2"):
        NeRN(mixed, hidden=4).size_report(torch.full((2, 2, 6, 6), torch.nan))


def test_rounded_weights_equal_hand_computed_ones():
    model = nn.Sequential(nn.Conv2d(1, 2, (1, 2), bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[7.0, -3.4], [0.7, 0.02]]).view(2, 1, 1, 2))
    found = quantize(model, bits=4)
    expected = torch.tensor([[7.0, -3.0], [0.7, 0.0]]).view(2, 1, 1, 2)
    torch.testing.assert_close(found.model[0].weight.detach(), expected)
    own = torch.tensor([7.0, -3.4, 0.7, 0.02])
    assert found.relative_error == pytest.approx(((own - expected.flatten()).norm() / own.norm()).item(), rel=1e-5)
    assert model[0].weight[0, 0, 0, 1].item() == pytest.approx(-3.4), "a copy was changed"
    assert pack_integers(torch.tensor([7.0, -3.0, 7.0, 0.0]), 4).tolist() == [0x7D, 0x70]


def test_fewer_bits_need_fewer_bytes_and_have_larger_errors(mixed):
    found = [quantize(mixed, bits=bits) for bits in (8, 6, 4, 2)]
    assert [f.bytes for f in found] == sorted((f.bytes for f in found), reverse=True)
    assert [f.relative_error for f in found] == sorted(f.relative_error for f in found)
    x = torch.rand(2, 2, 6, 6)
    torch.testing.assert_close(found[0].model(x), mixed(x), atol=0.02, rtol=0.02)


def test_zero_filters_remain_zero():
    scale, whole = round_weights(torch.zeros(2, 1, 3, 3), 8)
    assert torch.isfinite(scale).all() and (whole == 0).all()
    assert quantize(zeroed()).relative_error == 0


def zeroed():
    model = nn.Sequential(nn.Conv2d(1, 1, 3))
    nn.init.zeros_(model[0].weight)
    return model


def test_invalid_bits_are_refused():
    with pytest.raises(ValueError, match="bits is 16; expected 2 to 8"):
        quantize(nn.Conv2d(1, 1, 1), bits=16)


@pytest.fixture
def nern():
    torch.manual_seed(0)
    return NeRN(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), hidden=60, levels=6)


def test_compression_reduces_bytes(nern):
    before = [p.clone() for p in nern.predictor.parameters()]
    sizes = [compress(nern, keep=keep, bits=bits).bytes for keep, bits in ((1, 8), (1, 4), (0.5, 4), (0.2, 2))]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] < nern.size_report().total
    assert all(torch.equal(p, q) for p, q in zip(nern.predictor.parameters(), before, strict=True))
    weights = sum(p.numel() for p in nern.predictor.parameters() if p.dim() == 2)
    assert sizes[0] - sizes[1] == pytest.approx(weights / 2, abs=60), "half a byte a weight less, but for the header"


def test_largest_weights_are_retained(nern):
    found = compress(nern, keep=0.25, bits=8)
    matrices = [p for p in found.nern.predictor.parameters() if p.dim() == 2]
    kept = sum(int((p != 0).sum()) for p in matrices) / sum(p.numel() for p in matrices)
    assert kept == pytest.approx(0.25, abs=0.01)
    own = torch.cat([p.flatten() for p in nern.predictor.parameters() if p.dim() == 2])
    new = torch.cat([p.flatten() for p in matrices])
    assert own[new == 0].abs().median() < own[new != 0].abs().min() * 1.01
    for a, b in zip(nern.predictor.parameters(), found.nern.predictor.parameters(), strict=True):
        if a.dim() == 1:
            assert torch.equal(a, b), "biases are not rounded"
    assert found.relative_error == found.nern.relative_error()


def test_eight_bits_have_small_errors(nern):
    found = compress(nern).nern.weights()
    for name, weight in nern.weights().items():
        assert (found[name] - weight).norm() / weight.norm() < 0.02


@pytest.mark.parametrize(
    ("kwargs", "text"), [({"keep": 0.0}, "keep is 0.0; expected"), ({"bits": 9}, "bits is 9; expected")]
)
def test_invalid_compression_is_refused(nern, kwargs, text):
    with pytest.raises(ValueError, match=text):
        compress(nern, **kwargs)
