"""Networks as other repositories publish them: SIREN, WIRE, NeRF, NeRV and HNeRV, written anew."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from xinc_captum import Ablation, CarryError, LayerContribution, LayerError, NeuronCanvas, Secant, canvases
from xinc_captum.inr import coordinates

SIZE = (6, 8)
POINTS = 48


def independent(before, after, x):
    """Gradient x activation of each unit by one Jacobian per sample: (rows, units, *output)."""
    with torch.no_grad():
        activations = before(x)
    result = []
    for at in range(len(x)):
        one = activations[at : at + 1]
        slopes = torch.autograd.functional.jacobian(lambda a: after(a)[0], one)[..., 0, :]  # (*output, units, ...)
        result.append((slopes * one[0]).movedim(-1, 0))
    return torch.stack(result)


class BatchLinear(nn.Linear):
    def forward(self, x, params=None):
        weight, bias = (self.weight, self.bias) if params is None else params
        return x.matmul(weight.transpose(-1, -2)) + bias.unsqueeze(-2)


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(30 * x)


class Siren(nn.Module):
    """A dict in and a dict out, points on the second axis, one activation module for all layers."""

    def __init__(self, mix=False):
        super().__init__()
        sine, widths = Sine(), [2, 7, 7, 3]
        blocks = [nn.Sequential(BatchLinear(*pair), sine) for pair in pairwise(widths[:3])]
        self.net, self.mix = nn.Sequential(*blocks, nn.Sequential(BatchLinear(7, 3))), mix

    def forward(self, model_input):
        coords = model_input["coords"].clone().detach().requires_grad_(True)
        out = self.net(coords)
        return {"model_in": coords, "model_out": out - out.mean(1, keepdim=True) if self.mix else out}


@pytest.fixture
def siren():
    torch.manual_seed(0)
    return Siren().double()


@pytest.fixture
def sample():
    return coordinates(SIZE)[None].double()


def by_dict(model):
    return lambda coords: model({"coords": coords})


def siren_parts(model, call):
    """The network before and after one call of the activation, on points (points, 2)."""
    linears = [block[0] for block in model.net]

    def run(a, first, last):
        for at in range(first, last):
            a = torch.sin(30 * nn.functional.linear(a, linears[at].weight, linears[at].bias))
        return a

    def after(a):
        return nn.functional.linear(run(a, call + 1, 2), linears[2].weight, linears[2].bias)

    return (lambda x: run(x, 0, call + 1)), after


def test_inputs_in_a_dict_are_an_error_that_names_the_lambda(siren, sample):
    match = r'give the function lambda coords: model\(\{"coords": coords\}\) in place of the model, and inputs=coords\.'
    with pytest.raises(TypeError, match=match):
        NeuronCanvas(siren, "net.0.1", call=0).canvas({"coords": sample}, SIZE)
    match = r'lambda coords, input1: model\(\{"coords": coords, "a b": input1\}\) .* inputs=\(coords, input1\)'
    with pytest.raises(TypeError, match=match):
        LayerContribution(siren, "net.0.1", call=0).attribute({"coords": sample, "a b": sample}, target=(0, 0))


@pytest.mark.parametrize("call", [0, 1])
def test_canvas_of_a_siren_with_points_on_the_second_axis(siren, sample, call):
    canvas = NeuronCanvas(by_dict(siren), "net.0.1", call=call).canvas(sample, SIZE)
    expected = independent(*siren_parts(siren, call), sample[0])
    torch.testing.assert_close(canvas.to_tensor(), expected.permute(1, 2, 0).reshape(7, 3, *SIZE), atol=1e-6, rtol=1e-5)
    assert canvas.layer == f"net.0.1 (call {call})"


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation", Ablation("mean"), Ablation("resample")])
@pytest.mark.parametrize("budget", [None, 1 << 14])
def test_points_equal_the_rows_of_the_flattened_model(siren, sample, rule, budget):
    class Flat(nn.Module):
        """The same weights with rows first and modules of their own."""

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(*(part for block in siren.net for part in [block[0], Sine()][: len(block)]))

        def forward(self, x):
            return self.net(x)

    torch.testing.assert_close(Flat()(sample[0]), siren({"coords": sample})["model_out"][0])
    points = NeuronCanvas(by_dict(siren), "net.0.1", rule=rule, call=1)
    rows = NeuronCanvas(Flat(), "net.3", rule=rule)
    got = points.canvas(sample, SIZE, memory_budget=budget)
    expected = rows.canvas(sample[0], SIZE, memory_budget=budget)
    torch.testing.assert_close(got.to_tensor(), expected.to_tensor(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(got.totals(), expected.totals(), atol=1e-5, rtol=1e-5)
    assert got.trust == expected.trust
    one = points.canvas(sample, SIZE, target=1, memory_budget=budget).to_tensor()
    torch.testing.assert_close(one[:, 0], expected.to_tensor()[:, 1], atol=1e-6, rtol=1e-5)


def test_attribute_explains_the_sample_of_points_as_a_whole(siren, sample):
    method = NeuronCanvas(by_dict(siren), "net.0.1", call=1, unit_axis=-1)
    maps = NeuronCanvas(by_dict(siren), "net.0.1", call=1).canvas(sample, SIZE).to_tensor()
    whole = method.attribute(sample)  # (1, units, points, channels)
    torch.testing.assert_close(whole[0].transpose(1, 2).reshape(maps.shape), maps, atol=1e-6, rtol=1e-5)
    with pytest.raises(LayerError, match=r"cannot be determined: tokens and channels look alike\. Give unit_axis=1"):
        NeuronCanvas(by_dict(siren), "net.0.1", call=1).attribute(sample)


def test_layer_contribution_of_a_siren_is_a_pixel_of_its_canvas(siren, sample):
    canvas = NeuronCanvas(by_dict(siren), "net.0.1", call=1).canvas(sample, SIZE)
    got = LayerContribution(by_dict(siren), "net.0.1", call=1).attribute(sample, target=(11, 2))  # (1, points, units)
    torch.testing.assert_close(got[0, 11], canvas.to_tensor()[:, 2].flatten(1)[:, 11], atol=1e-6, rtol=1e-5)
    others = got.clone()
    others[0, 11] = 0
    assert not others.any()


@pytest.mark.parametrize("rule", ["tangent", "secant"])
def test_canvases_of_a_siren(siren, sample, rule):
    both = canvases(by_dict(siren), ["net.0.0", "net.1.0"], sample, SIZE, rule=rule)
    for name, canvas in both.items():
        alone = NeuronCanvas(by_dict(siren), name, rule=rule).canvas(sample, SIZE)
        torch.testing.assert_close(canvas.to_tensor(), alone.to_tensor(), atol=1e-6, rtol=1e-5)
    assert list(canvases(by_dict(siren), ["net.0.1"], sample, SIZE, call=1)) == ["net.0.1"]


def test_points_with_a_second_input_and_shared_arguments():
    torch.manual_seed(0)
    first, last = nn.Linear(5, 6), nn.Linear(6, 2)

    def model(coords, codes, scale):
        return last(torch.tanh(first(torch.cat([coords, codes], -1)))) * scale

    x, codes, scale = coordinates(SIZE), torch.rand(POINTS, 3), torch.rand(2)
    got = NeuronCanvas(model, first).canvas((x[None], codes[None]), SIZE, additional_forward_args=scale)
    expected = NeuronCanvas(model, first).canvas((x, codes), SIZE, additional_forward_args=scale)
    torch.testing.assert_close(got.to_tensor(), expected.to_tensor(), atol=1e-6, rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"a tensor of shape \(1, 48, \.\.\.\), one entry for each point; expected it amo"
    ):
        NeuronCanvas(lambda x, scale, c: model(x, c, scale), first).canvas(x[None], SIZE, None, (scale, codes[None]))


def test_points_that_depend_on_each_other_are_refused(sample):
    torch.manual_seed(0)
    model = Siren(mix=True).double()
    with pytest.raises(
        ValueError, match=r"are 48 points of one sample, and the output at a point depends on the other"
    ):
        NeuronCanvas(by_dict(model), "net.0.0").canvas(sample, SIZE)


def test_samples_that_are_not_split_into_points(siren, sample):
    match = (
        r"pixels, and inputs of shape \({}, 48, 2\) are {} samples of as many points\. A sample is split into points if"
    )
    canvas = NeuronCanvas(by_dict(siren), "net.0.0").canvas
    with pytest.raises(ValueError, match=match.format(2, 2)):
        canvas(torch.cat([sample, sample]), SIZE)
    for size in (SIZE, (9, 9)):  # at most 64 points are tried
        grid, bias = coordinates(size)[None].double(), torch.rand(size[0] * size[1], 3).double()
        with pytest.raises(
            ValueError, match=r"or on their number|inputs of shape \(1, 81, 2\) are 1 samples of as many"
        ):
            NeuronCanvas(lambda x, b=bias: siren({"coords": x})["model_out"] + b, "net.0.0").canvas(grid, size)
    with pytest.raises(ValueError, match=match.format(1, 1)):  # another input without points
        NeuronCanvas(lambda x, _code: siren({"coords": x}), "net.0.0").canvas((sample, torch.rand(1, 4)), SIZE)


def test_points_with_one_number_each(siren, sample):
    occupancy = NeuronCanvas(lambda x: siren({"coords": x})["model_out"][..., 0], "net.0.0").canvas(sample, SIZE)
    maps = NeuronCanvas(by_dict(siren), "net.0.0").canvas(sample, SIZE, target=0).to_tensor()
    torch.testing.assert_close(occupancy.to_tensor(), maps, atol=1e-9, rtol=1e-9)


def test_points_that_are_not_finite_have_the_error_of_rows(siren, sample):
    sample[0, 3, 0] = float("nan")
    with pytest.raises(ValueError, match="input 0 holds 1 NaN or infinite values"):
        NeuronCanvas(by_dict(siren), "net.0.0").canvas(sample, SIZE)


def test_a_sample_of_points_of_another_number_is_no_image(siren, sample):
    with pytest.raises(ValueError, match=r"size=\(5, 8\) has 40 pixels, but the inputs have 1 rows"):
        NeuronCanvas(by_dict(siren), "net.0.0").canvas(sample, (5, 8))


class Gabor(nn.Module):
    """A complex Gabor wavelet of a linear layer; real weights in the first layer, complex ones later."""

    def __init__(self, ins, outs, dtype):
        super().__init__()
        self.linear = nn.Linear(ins, outs, dtype=dtype)

    def forward(self, x):
        z = self.linear(x)
        return torch.exp(1j * 3 * z - (2 * z).abs().square())


class Wire(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            Gabor(2, 5, torch.float64), Gabor(5, 5, torch.complex128), nn.Linear(5, 3, dtype=torch.complex128)
        )

    def forward(self, coords):
        return self.net(coords).real


class RealTail(nn.Module):
    """The network after a layer of a Wire, with real and imaginary parts as separate units."""

    def __init__(self, wire, first):
        super().__init__()
        self.wire, self.first, self.parts = wire, first, nn.Identity()

    def forward(self, x):
        a = self.wire.net[: self.first + 1](x)
        parts = self.parts(torch.cat([a.real, a.imag], 1))
        real, imaginary = parts.chunk(2, 1)
        for block in self.wire.net[self.first + 1 : -1]:
            weight, bias = block.linear.weight, block.linear.bias
            p = real @ weight.real.T - imaginary @ weight.imag.T + bias.real
            q = real @ weight.imag.T + imaginary @ weight.real.T + bias.imag
            size = torch.exp(-3 * q - 4 * (p**2 + q**2))  # |exp(3i(p + iq) - 4|p + iq|²)|
            real, imaginary = size * torch.cos(3 * p), size * torch.sin(3 * p)
        last = self.wire.net[-1]
        return real @ last.weight.real.T - imaginary @ last.weight.imag.T + last.bias.real


@pytest.fixture
def wire():
    torch.manual_seed(0)
    return Wire()


@pytest.mark.parametrize("at", [0, 1])
def test_complex_units_equal_those_of_a_real_network_of_twice_the_width(wire, at):
    x = coordinates(SIZE).double()
    real = RealTail(wire, at)
    torch.testing.assert_close(real(x), wire(x))
    expected = NeuronCanvas(real, "parts").attribute(x).unflatten(1, (2, 5)).sum(1)
    assert expected.dtype == torch.float64 and expected.abs().max() > 1e-3
    got = NeuronCanvas(wire, f"net.{at}").attribute(x)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    for channel in range(3):
        one = LayerContribution(wire, f"net.{at}").attribute(x, target=channel)
        torch.testing.assert_close(one, expected[..., channel], atol=1e-6, rtol=1e-6)
    points = NeuronCanvas(wire, f"net.{at}").canvas(x[None], SIZE).to_tensor()
    torch.testing.assert_close(points.flatten(2).permute(2, 0, 1), expected, atol=1e-6, rtol=1e-6)
    chosen = NeuronCanvas(wire, f"net.{at}").attribute(x, neuron_selector=[3, (1,), lambda a: a[:, 0] + a[:, 2]])
    sums = torch.stack([expected[:, 3], expected[:, 1], expected[:, 0] + expected[:, 2]], 1)
    torch.testing.assert_close(chosen, sums, atol=1e-6, rtol=1e-6)


def test_complex_units_add_up_for_a_linear_tail(wire):
    x = coordinates(SIZE).double()
    with torch.no_grad():
        a, last = wire.net[:2](x), wire.net[2]
        expected = (a[:, :, None] * last.weight.T).real  # c_u = Re(W_u a_u)
    got, delta = NeuronCanvas(wire, "net.1").attribute(x, return_convergence_delta=True)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(delta, torch.zeros(POINTS, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(got.sum(1) + last.bias.real, wire(x), atol=1e-9, rtol=1e-9)
    inside, delta = LayerContribution(wire, "net.2").attribute(x, 0, None, True, return_convergence_delta=True)
    torch.testing.assert_close(inside, expected[..., 0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(delta, torch.zeros(POINTS, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("baseline", [0.0, 0.5, "mean"])
def test_ablation_sets_complex_units(wire, baseline):
    x = coordinates(SIZE).double()
    with torch.no_grad():
        a, tail = wire.net[0](x), wire.net[1:]
        value = a.mean(0) if baseline == "mean" else torch.full((5,), baseline, dtype=a.dtype)
        expected = []
        for unit in range(5):
            new = a.clone()
            new[:, unit] = value[unit]
            expected.append(wire(x) - tail(new).real)
    got = NeuronCanvas(wire, "net.0", rule=Ablation(baseline)).attribute(x)
    torch.testing.assert_close(got, torch.stack(expected, 1), atol=1e-9, rtol=1e-9)
    if baseline == "mean":
        by_tensor = NeuronCanvas(wire, "net.0", rule=Ablation(value)).attribute(x)
        torch.testing.assert_close(by_tensor, got, atol=1e-9, rtol=1e-9)
        with pytest.raises(ValueError, match="one position for each unit"):
            NeuronCanvas(wire, "net.0", rule=Ablation("mean")).attribute(x[:1])


def test_a_lazily_conjugated_layer(wire):
    class Conjugate(nn.Module):
        def forward(self, z):
            return z.conj()

    x, layer = coordinates(SIZE).double(), Conjugate()
    model = nn.Sequential(wire.net[0], layer, wire.net[1:])
    got = NeuronCanvas(lambda x: model(x).real, layer).attribute(x)
    with torch.no_grad():
        expected = torch.stack(
            [LayerContribution(lambda x, c=c: model(x).real[:, c], layer).attribute(x) for c in range(3)], -1
        )
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
    slopes = LayerContribution(lambda x: model(x).real, layer, multiply_by_inputs=False).attribute(x, target=0)
    torch.testing.assert_close((wire.net[0](x).conj() * slopes.conj()).real, expected[..., 0], atol=1e-9, rtol=1e-9)
    assert not slopes.is_conj()


def test_complex_maps_of_frames():
    torch.manual_seed(0)
    stem = nn.Conv2d(2, 4, 3, padding=1, dtype=torch.complex64)
    head = nn.Conv2d(4, 3, 1, dtype=torch.complex64)
    x = torch.randn(2, 2, *SIZE, dtype=torch.complex64)

    def model(images):
        return head(stem(torch.view_as_complex(images))).real

    canvas = NeuronCanvas(model, stem).canvas(torch.view_as_real(x), SIZE)
    with torch.no_grad():
        expected = (stem(x)[:, :, None] * head.weight[:, :, 0, 0].T[None, :, :, None, None]).real
    torch.testing.assert_close(canvas.to_tensor(), expected, atol=1e-6, rtol=1e-5)
    masks = torch.ones(1, *SIZE)
    torch.testing.assert_close(canvas.regions(masks, signed=True)[:, 0], expected.sum((-1, -2)), atol=1e-5, rtol=1e-5)


def test_complex_layers_of_several_canvases_and_of_rays(wire):
    x = coordinates(SIZE).double()
    for name, canvas in canvases(wire, ["net.0", "net.1"], x, SIZE).items():
        alone = NeuronCanvas(wire, name).attribute(x)
        torch.testing.assert_close(canvas.to_tensor().flatten(2).permute(2, 0, 1), alone, atol=1e-9, rtol=1e-9)
    rays, alone = x.unflatten(0, SIZE), NeuronCanvas(wire, "net.0").attribute(x)
    by_ray = NeuronCanvas(wire, "net.0", render=lambda outputs, _x: outputs.sum(1)).attribute(rays)
    torch.testing.assert_close(by_ray, alone.unflatten(0, SIZE).sum(1), atol=1e-9, rtol=1e-9)
    rule = Ablation(0.5)
    by_ray = NeuronCanvas(wire, "net.0", render=lambda outputs, _x: outputs.sum(1), rule=rule).attribute(rays)
    alone = NeuronCanvas(wire, "net.0", rule=rule).attribute(x)
    torch.testing.assert_close(by_ray, alone.unflatten(0, SIZE).sum(1), atol=1e-9, rtol=1e-9)


def test_complex_layers_that_are_refused(wire):
    x = coordinates(SIZE).double()
    with pytest.raises(CarryError, match=r"layer 'net\.0' is complex, and rule 'secant' supports real numbers only\."):
        NeuronCanvas(wire, "net.0", rule=Secant()).attribute(x)
    with pytest.raises(CarryError, match="its result is complex"):  # a real layer before complex ones
        NeuronCanvas(wire, "net.0.linear", rule="secant").attribute(x)
    with pytest.raises(LayerError, match=r"layer 'net\.2' has complex weights; pairs and the 'xinc' rule"):
        NeuronCanvas(wire, "net.2", unit="pair").attribute(x)
    for rule in ("tangent", "secant"):
        with pytest.raises(ValueError, match=r"output is torch\.complex128; expected|is complex, and rule 'secant'"):
            NeuronCanvas(wire.net, "0", rule=rule).attribute(x)
    with pytest.raises(ValueError, match=r"output is torch\.complex128; expected real numbers"):
        LayerContribution(wire.net, "0").attribute(x, target=0)


class Field(nn.Module):
    """A NeRF's MLP: positions are concatenated again, one ReLU is shared, directions join the colour branch."""

    def __init__(self):
        super().__init__()
        self.points = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(14, 8)])
        self.relu, self.alpha, self.feature = nn.ReLU(), nn.Linear(8, 1), nn.Linear(8, 8)
        self.views, self.rgb = nn.Linear(8 + 4, 5), nn.Linear(5, 3)

    def forward(self, x):
        positions, directions = torch.split(x, [6, 4], dim=-1)
        return self.after(self.before(positions, 3), positions, directions, 3)

    def before(self, positions, layers):
        h = positions
        for at in range(layers):
            h = self.relu(self.points[at](torch.cat([positions, h], -1) if at == 2 else h))
        return h

    def after(self, h, positions, directions, done):
        for at in range(done, 3):
            h = self.relu(self.points[at](torch.cat([positions, h], -1) if at == 2 else h))
        colour = self.relu(self.views(torch.cat([self.feature(h), directions], -1)))
        return torch.cat([self.rgb(colour), self.alpha(h)], -1)


@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_nerf_with_one_relu(call):
    torch.manual_seed(0)
    model, x = Field().double(), torch.randn(9, 10).double()
    rows = iter(range(9))
    expected = independent(
        lambda x: model.before(x[:, :6], call + 1),
        lambda a: model.after(a, x[(at := next(rows)) : at + 1, :6], x[at : at + 1, 6:], call + 1),
        x,
    )
    for rule in ("tangent", "secant"):
        method = NeuronCanvas(model, "relu", rule=rule, call=call)
        torch.testing.assert_close(method.attribute(x)[:, :8], expected, atol=1e-6, rtol=1e-6)
    got = LayerContribution(model, "relu", call=call).attribute(x, target=1)
    torch.testing.assert_close(got, expected[..., 1], atol=1e-6, rtol=1e-6)
    with pytest.raises(LayerError, match=r"which of its 4 calls is meant is not clear\. Give call=0 to call=3"):
        NeuronCanvas(model, "relu").attribute(x)


class Decoder(nn.Module):
    """Blocks of a convolution, PixelShuffle and one shared activation, as in NeRV; outputs as the repositories return."""

    def __init__(self, output):
        super().__init__()
        self.stem, self.act, self.output = nn.Linear(3, 4 * 2 * 2), nn.GELU(), output
        self.blocks = nn.ModuleList([nn.Conv2d(4, 12, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)])
        self.shuffle, self.head = nn.PixelShuffle(2), nn.Conv2d(2, 3, 1)

    def block(self, at, x):
        return self.act(self.shuffle(self.blocks[at](x)))

    def forward(self, t):
        embedding = self.stem(t).unflatten(1, (4, 2, 2))
        image = torch.sigmoid(self.head(self.block(1, self.block(0, embedding))))
        return [image] if self.output == "list" else (image, [embedding], 0.1)


@pytest.mark.parametrize(("output", "output_fn"), [("list", None), ("tuple", lambda output: output[0])])
def test_a_decoder_with_one_activation(output, output_fn):
    torch.manual_seed(0)
    model, t = Decoder(output), torch.rand(2, 3)
    with torch.no_grad():
        a = model.block(0, model.stem(t).unflatten(1, (4, 2, 2)))

    def after(a):
        return torch.sigmoid(model.head(model.block(1, a)))

    expected = torch.stack(
        [
            (torch.autograd.functional.jacobian(after, one)[0, ..., 0, :, :, :] * one[0]).sum((-1, -2))
            for one in a[:, None]
        ]
    ).movedim(-1, 1)
    method = NeuronCanvas(model, "act", call=0, output_fn=output_fn)
    torch.testing.assert_close(method.attribute(t), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(method.canvas(t, (8, 8)).to_tensor(), expected, atol=1e-6, rtol=1e-5)
    total = NeuronCanvas(model, "act", call=0, output_fn=output_fn, rule="secant").attribute(t).sum(1)
    torch.testing.assert_close(total, after(a), atol=1e-5, rtol=1e-5)
    if output == "tuple":
        with pytest.raises(TypeError, match=r"Choose the tensor to explain with output_fn="):
            NeuronCanvas(model, "act", call=0).attribute(t)
