import itertools
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import LayerError
from xinc_captum.attributions.nern import (
    Convolution,
    NeRN,
    convolutions,
    crop,
    greedy_paths,
    kernel_coordinates,
    order_kernels,
    uncrop,
)
from xinc_captum.attributions.nern.kernels import LayerOrder, copy_target, pack, unpack

KINDS = ["cross-filter", "in-filter", "none"]


def test_convolutions_are_found_in_order(mixed):
    found = convolutions(mixed)
    assert [one.name for one in found] == ["stem", "wide", "depthwise", "point"]
    assert found[2] == Convolution("depthwise", (6, 1, 3, 3))
    assert (found[0].kernels, found[0].size, found[0].weights) == (8, (5, 5), 200)


def test_layers_by_name_by_module_and_of_functions(mixed):
    assert [one.name for one in convolutions(mixed, ["point", mixed.wide])] == ["point", "wide"]
    assert convolutions(lambda x: mixed(x)["logits"], [mixed.stem])[0].name == "stem"
    assert convolutions(nn.DataParallel(mixed), ["stem"])[0].name == "stem"


class Cached(nn.Module):
    """A layer that keeps a tensor with its graph after a pass, as the attention of timm's LeViT does."""

    def __init__(self):
        super().__init__()
        self.conv, self.bias, self.cache = nn.Conv2d(1, 2, 3), nn.Parameter(torch.ones(2)), {}

    def forward(self, x):
        if "bias" not in self.cache:
            self.cache["bias"] = 2 * self.bias
        return self.conv(x).mean((2, 3)) + self.cache["bias"]


def test_a_cached_tensor_is_copied_without_its_graph():
    net, x = Cached(), torch.rand(2, 1, 5, 5)
    expected, cached = net(x), net.cache["bias"]
    copied = copy_target(net)
    torch.testing.assert_close(copied(x), expected)
    assert net.cache["bias"] is cached and cached.grad_fn is not None
    assert copied.cache["bias"].grad_fn is None and copied.cache["bias"].data_ptr() != cached.data_ptr()
    assert NeRN(net, hidden=4).rebuild()(x).shape == (2, 2)


def test_module_used_twice_is_one_layer():
    conv = nn.Conv2d(2, 2, 3)
    assert len(convolutions(nn.Sequential(conv, nn.ReLU(), conv))) == 1


class Shared(nn.Module):
    """Two convolutions of one weight, each with a bias of its own, and a third."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.three(self.two(self.one(x).relu()).relu()).mean((2, 3))


def test_shared_weight_is_represented_once():
    model = Shared().eval()
    assert [one.name for one in convolutions(model)] == ["one", "three"]
    nern = NeRN(model, hidden=4, levels=4)
    assert nern.layer("two") == nern.layer(model.two) == nern.layer("one")
    nern.fit(torch.rand(8, 2, 5, 5), steps=2, show_progress=False)
    rebuilt = nern.rebuild()
    assert rebuilt.two.weight is rebuilt.one.weight and torch.equal(rebuilt.two.weight, nern.weights()["one"])
    assert nern.size_report().represented == 2 * 36
    with pytest.raises(LayerError, match="layers 'one' and 'two' share one weight; name one of them"):
        convolutions(model, ["one", "two"])
    assert [one.name for one in convolutions(model, ["two"])] == ["two"]


@pytest.mark.parametrize("size", [(1, 7), (7, 1), (2, 4), (7, 7)])
def test_kernels_that_are_not_square_are_represented(size):
    model = nn.Sequential(nn.Conv2d(2, 4, size, padding=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    nern = NeRN(model, hidden=4, levels=4)
    assert nern.kernel_size == max(size)
    nern.fit(torch.rand(8, 2, 6, 6), steps=2, show_progress=False)
    assert nern.rebuild()[0].weight.shape == (4, 2, *size)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (["fc"], r"layer 'fc' is a Linear; expected an nn.Conv1d, nn.Conv2d or nn.Conv3d: leave this"),
        (["stam"], "did you mean 'stem'"),
        ([], "layers is empty; name at least one"),
        (["stem", "stem"], "layers names 'stem' twice"),
        ([nn.Conv2d(1, 1, 1)], "is not part of the model"),
    ],
)
def test_invalid_layers_are_refused(mixed, layers, text):
    with pytest.raises(LayerError, match=text):
        convolutions(mixed, layers)


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_other_convolutions_are_refused(kind):
    with pytest.raises(LayerError, match=f"layer '0' is a {kind.__name__}; expected an nn.Conv1d, "):
        convolutions(nn.Sequential(kind(1, 1, 3)), ["0"])


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_networks_with_transposed_convolutions_only_are_refused(kind):
    with pytest.raises(LayerError, match=r"the target Sequential has no nn\.Conv1d, .*; give a convolutional network"):
        NeRN(nn.Sequential(kind(1, 1, 3)))
    both = nn.Sequential(nn.Conv2d(1, 2, 3), kind(2, 2, 3))
    assert [one.name for one in convolutions(both)] == ["0"], "the others stay the target's own"


def test_weights_without_values_are_refused():
    with pytest.raises(LayerError, match="'0' has no values: it is lazy and was never called; load or run the network"):
        NeRN(nn.Sequential(nn.LazyConv2d(4, 3)))
    with pytest.raises(LayerError, match="'0' has no values: it is on the meta device"):
        NeRN(nn.Sequential(nn.Conv2d(1, 2, 3)).to("meta"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_must_be_finite(mixed, value):
    nern = NeRN(mixed, hidden=4)
    with torch.no_grad():
        mixed.point.weight[2, 1] = value
    with pytest.raises(LayerError, match="the weights of 'point' hold NaN or infinite .*; load another network, or"):
        nern.fit(steps=1, show_progress=False)
    assert NeRN(mixed, ["stem"], hidden=4).fit(steps=1, show_progress=False).steps == 1


def test_targets_without_convolutions_are_refused():
    with pytest.raises(
        LayerError,
        match=r"the target Linear has no nn\.Conv1d, nn\.Conv2d or nn\.Conv3d, and a NeRN represents kernels",
    ):
        NeRN(nn.Linear(2, 2))


def test_computed_weights_are_refused():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3)))
    with pytest.raises(LayerError, match=r"the weight of layer '0' is computed .*remove_parametrizations"):
        convolutions(model, ["0"])
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(1, 2, 3)))
    with pytest.raises(LayerError, match=r"the weight of layer '0' is computed .*remove_weight_norm for the older"):
        convolutions(model)


def test_targets_must_be_one_module(mixed):
    other = nn.Conv2d(1, 1, 1)
    with pytest.raises(
        LayerError, match="a NeRN represents one module, but .* refers to (Mixed, Conv2d|Conv2d, Mixed)"
    ):
        convolutions(lambda x: other(mixed(x)))
    with pytest.raises(LayerError, match="refers to none; give the module itself"):
        convolutions(torch.relu)
    with pytest.raises(LayerError, match="scripted and traced models run no Python hooks"):
        convolutions(torch.jit.trace(mixed, torch.rand(1, 2, 6, 6)))


def test_kernels_larger_than_the_predicted_are_refused(mixed):
    with pytest.raises(LayerError, match=r"larger than the predicted 3x3 .*'stem' 5x5. Take kernel_size=5, or leave"):
        NeRN(mixed, kernel_size=3)
    assert NeRN(mixed).kernel_size == 5
    assert NeRN(mixed, ["point", "wide"], kernel_size=3).kernel_size == 3
    with pytest.raises(ValueError, match="kernel_size is 0; expected at least 1"):
        NeRN(mixed, kernel_size=0)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("index", "int"), ("index", "None"), ("local", "local"), ("global", "global")]
)
def test_coordinates_equal_the_recorded_ones(arrays, ours, theirs):
    shapes = [tuple(arrays[f"net/state/conv{i}.weight"].shape) for i in (1, 2, 3, 4)]
    expected = torch.cat([arrays[f"coords/{theirs}/layer{i}"] for i in range(4)]).double()
    torch.testing.assert_close(kernel_coordinates(shapes, ours), expected, atol=1e-7, rtol=0)


def test_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale is 'unit'; expected one of 'index', 'local', 'global'"):
        kernel_coordinates([(1, 1, 3, 3)], "unit")


WAYS = ["center", "average", "max"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("side", [1, 3])
def test_crop_equals_the_recorded_one(arrays, how, side):
    found = crop(arrays["crop/pred3x3"], (side, side), how)
    torch.testing.assert_close(found, arrays[f"crop/{how}/to{side}"], atol=1e-7, rtol=0)


def test_crop_of_larger_kernels_equals_hand_computed_values():
    p = torch.arange(49.0).view(1, 7, 7)
    assert crop(p, (5, 5))[0, 0].tolist() == [8, 9, 10, 11, 12]
    assert crop(p, (1, 3))[0].tolist() == [[23, 24, 25]]
    assert crop(p, (2, 2), "max")[0].tolist() == [[40, 41], [47, 48]]
    assert crop(p, (2, 2), "average")[0].tolist() == [[20, 21], [27, 28]]


@given(how=st.sampled_from(WAYS), k=st.integers(1, 5), h=st.integers(1, 5), w=st.integers(1, 5))
def test_i12_uncrop_is_the_transpose_of_crop(how, k, h, w):
    h, w = min(h, k), min(w, k)
    generator = torch.Generator().manual_seed(k * 25 + h * 5 + w)
    p, other, g = (torch.randn(6, *size, dtype=torch.float64, generator=generator) for size in ((k, k), (k, k), (h, w)))
    left = (crop(other, (h, w), how, chosen_by=p) * g).sum()
    right = (other * uncrop(g, k, how, chosen_by=p)).sum()
    assert abs(left - right) < 1e-10
    # and autograd agrees, at the point where the maxima were chosen
    p.requires_grad_()
    (gradient,) = torch.autograd.grad((crop(p, (h, w), how) * g).sum(), p)
    torch.testing.assert_close(uncrop(g, k, how, chosen_by=p), gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("how", WAYS)
def test_leading_dims_are_cropped_alike(how):
    p = torch.randn(4, 3, 3)
    many = torch.stack([p, 2 * p])
    found = crop(many, (2, 1), how, chosen_by=p)
    torch.testing.assert_close(found[1], 2 * crop(p, (2, 1), how))
    torch.testing.assert_close(uncrop(found, 3, how, chosen_by=p)[0], uncrop(found[0], 3, how, chosen_by=p))


@pytest.mark.parametrize(
    ("size", "how", "text"),
    [
        ((5, 5), "center", "5x5 kernels cannot be cut out of 3x3; predict larger ones"),
        ((0, 1), "center", "0x1 kernels cannot be cut"),
        ((1, 1), "mean", "crop is 'mean'; expected one of 'center', 'average', 'max'"),
    ],
)
def test_invalid_crops_are_refused(size, how, text):
    with pytest.raises(ValueError, match=text):
        crop(torch.zeros(1, 3, 3), size, how)


def test_transpose_of_max_needs_the_predicted_kernels():
    with pytest.raises(ValueError, match="needs chosen_by="):
        uncrop(torch.ones(1, 1, 1), 3, "max")


@pytest.mark.parametrize("layer", range(4))
def test_orders_equal_the_recorded_ones(arrays, recorded, layer):
    weight = getattr(recorded, f"conv{layer + 1}").weight
    rows = arrays[f"embed/local/layer{layer}"]
    if (
        layer == 2
    ):  # kernels of one number: many tie, and rounding orders them, so that only the embedded rows are compared
        for kind, name in (("in-filter", "infilter"), ("cross-filter", "crossfilter")):
            found, expected = (
                rows[order_kernels(weight, kind).ranks(weight.shape)],
                arrays[f"embed/{name}/layer{layer}"],
            )
            assert torch.equal(found.unique(dim=0), expected.unique(dim=0))
        return
    assert torch.equal(order_kernels(weight).kernels, arrays[f"perm/crossfilter/layer{layer}"])
    within = order_kernels(weight, "in-filter")
    assert torch.equal(within.filters, arrays[f"perm/infilter/filters/layer{layer}"])
    assert torch.equal(within.channels, arrays[f"perm/infilter/channels/layer{layer}"])
    for kind, name in (("in-filter", "infilter"), ("cross-filter", "crossfilter")):
        assert torch.equal(rows[order_kernels(weight, kind).ranks(weight.shape)], arrays[f"embed/{name}/layer{layer}"])


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_objective_equals_the_recorded_one(arrays, recorded, layer):
    weight = getattr(recorded, f"conv{layer + 1}").weight.detach().flatten(0, 1).flatten(1)
    unit = weight / weight.norm(dim=1, keepdim=True)
    for name, path in (("identity", torch.arange(len(unit))), ("crossfilter", ordered_path(recorded, layer))):
        along = unit[path]
        found = 1 - (along[1:] * along[:-1]).mean()
        torch.testing.assert_close(found, arrays[f"perm/path_objective/{name}/layer{layer}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_path_of_the_recorded_similarities(arrays, recorded, layer):
    """Each kernel goes on to the one that the released code finds most alike, among those that are left."""
    alike, path = arrays[f"perm/sim_all/layer{layer}"].clone().fill_diagonal_(-2), ordered_path(recorded, layer)
    for here, there in itertools.pairwise(path):
        alike[:, here] = -2
        assert alike[here, there] >= alike[here].max() - 1e-6


def test_recorded_similarities_of_single_numbers(arrays, recorded):
    """What "in-filter" compares 1x1 kernels by."""
    values = recorded.conv3.weight.detach().flatten()
    unit = values / values.norm()
    expected = arrays["perm/sim_all/layer2"]
    torch.testing.assert_close(-(unit[:, None] - unit).square(), expected, atol=1e-6, rtol=0)


def ordered_path(recorded, layer):
    return order_kernels(getattr(recorded, f"conv{layer + 1}").weight).kernels


def one_by_one(rows):
    path, closed = [0], torch.zeros(len(rows))
    for _ in range(len(rows) - 1):
        closed[path[-1]] = -torch.inf
        path.append(int((rows @ rows[path[-1]] + closed).argmax()))
    return path


def test_removing_visited_rows_does_not_change_the_path():
    rows = torch.randint(-2, 3, (2, 700, 3)).float()  # many ties, exact in float32
    found = greedy_paths(rows)
    assert found[0].tolist() == one_by_one(rows[0])
    assert found[1].tolist() == one_by_one(rows[1])


@given(f=st.integers(1, 5), c=st.integers(1, 5), k=st.integers(1, 3), kind=st.sampled_from(KINDS))
def test_every_coordinate_belongs_to_one_kernel(f, c, k, kind):
    weight = torch.randn(f, c, k, k, generator=torch.Generator().manual_seed(f * c + k))
    order = order_kernels(weight, kind)
    assert sorted(order.ranks(weight.shape).tolist()) == list(range(f * c))
    again = unpack(pack(order), weight.shape, kind)
    assert torch.equal(again.ranks(weight.shape), order.ranks(weight.shape))


def test_dead_kernels_and_one_channel():
    assert order_kernels(torch.zeros(3, 1, 3, 3)).ranks((3, 1)).tolist() == [0, 1, 2]
    assert order_kernels(torch.zeros(3, 1, 1, 1), "in-filter").ranks((3, 1)).tolist() == [0, 1, 2]
    assert order_kernels(torch.randn(1, 1, 3, 3), "in-filter").channels.tolist() == [[0]]


def test_packed_bytes_are_counted():
    assert len(pack(order_kernels(torch.randn(10, 10, 3, 3)))) == 88  # 100 indices of 7 bits
    assert len(pack(order_kernels(torch.randn(10, 10, 3, 3), "in-filter"))) == 55  # 110 of 4
    assert pack(LayerOrder()) is None


def test_damaged_bytes_are_refused():
    packed = pack(order_kernels(torch.randn(4, 4, 3, 3)))
    with pytest.raises(ValueError, match=r"8 bytes of a permutation do not fit kernels of shape \(5, 4, 3, 3\)"):
        unpack(packed, (5, 4, 3, 3), "cross-filter")
    with pytest.raises(ValueError, match=r"a permutation of kernels of shape \(4, 4, 3, 3\) contains duplicates"):
        unpack(torch.zeros_like(packed), (4, 4, 3, 3), "cross-filter")
    with pytest.raises(ValueError, match="permutation is 'cross'; expected one of 'cross-filter', 'in-filter', 'none'"):
        order_kernels(torch.zeros(1, 1, 3, 3), "cross")


def test_four_thousand_kernels_are_fast():
    weight = torch.randn(64, 64, 3, 3)
    start = time.process_time()
    order_kernels(weight)
    assert time.process_time() - start < 5  # .15 s; a list of pairs takes 3 s at this size and grows with its square
