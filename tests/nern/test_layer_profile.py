import torch

from xinc_captum.attributions.nern import KernelCanvas, NeRN, layer_profile


def test_shares_and_sums(mixed, make_drawn):
    nern = make_drawn(NeRN(mixed.double(), hidden=9, levels=4))
    with torch.no_grad():
        nern.predictor.output.weight[:, 3] = 0  # writes nothing
    found = layer_profile(nern)
    assert found.layers == ("stem", "wide", "depthwise", "point")
    assert found.share.shape == found.signed.shape == (10, 4)
    totals = torch.stack([w.detach().sum() for w in nern.weights().values()])
    assert (found.signed.sum(0) - totals).abs().max() < 1e-10
    off = found.share.sum(1) == 0
    assert off[3] and ((found.share.sum(1) - 1).abs()[~off] < 1e-12).all()
    by_hand = torch.stack([KernelCanvas(nern, name).to_tensor()[5].abs().sum() for name in found.layers])
    torch.testing.assert_close(found.share[5], by_hand / by_hand.sum().clamp_min(1e-300))
