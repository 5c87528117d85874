import pytest
import torch

from xinc_captum.attributions.nern import NeRN, error_map, filter_ranking, without_filters


def test_orders(mixed):
    nern = NeRN(mixed, hidden=6)
    every = {(layer.name, f) for layer in nern.layers for f in range(layer.shape[0])}
    rankings = {by: filter_ranking(nern, by) for by in ("error", "magnitude", "random")}
    assert all(len(r) == len(every) and set(r) == every for r in rankings.values())
    errors = [error_map(nern, name).filter_error[f].item() for name, f in rankings["error"]]
    assert errors == sorted(errors, reverse=True)
    for name in ("stem", "point"):
        within = [f for layer, f in rankings["magnitude"] if layer == name]
        assert within == error_map(nern, name).filter_magnitude.argsort().tolist()
    assert filter_ranking(nern, "random", seed=1) != rankings["random"] == filter_ranking(nern, "random")


def test_a_large_layer_is_not_spared_for_being_large(mixed):
    before = filter_ranking(NeRN(mixed, hidden=6), "magnitude")
    with torch.no_grad():
        mixed.wide.weight.mul_(1000)
    assert filter_ranking(NeRN(mixed, hidden=6), "magnitude") == before


def test_taking_out(mixed, found):
    x, before = torch.rand(2, 2, 6, 6), found(mixed)
    model = without_filters(mixed, [("stem", 1), ("point", 0)])
    assert before.differences(mixed) == []
    assert (model.stem.weight[1] == 0).all() and model.stem.bias[1] == 0 and (model.point.weight[0] == 0).all()
    assert torch.equal(model.stem.weight[0], mixed.stem.weight[0])
    assert (model.point(torch.rand(1, 6, 2, 2))[:, 0] == 0).all() and not torch.equal(model(x), mixed(x))
    assert torch.equal(without_filters(mixed, [])(x), mixed(x))


def test_unknown_order(mixed):
    with pytest.raises(ValueError, match="by is 'size'; wanted one of 'error', 'magnitude', 'random'"):
        filter_ranking(NeRN(mixed, hidden=4), "size")
