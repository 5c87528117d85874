"""Hypernetworks of other code: the layouts of two released programs, written anew, and independent derivatives."""

import copy
import itertools
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradientXActivation
from torch import nn

from xinc_captum import LayerError, TokenContribution, WeightContribution
from xinc_captum.attributions.trans_inr import WrittenWeights


class HypoNetwork(nn.Module):
    """Stores its parameters, (B, in + 1, out) a layer with the bias last, and maps coordinates to B outputs."""

    def __init__(self, sizes):
        super().__init__()
        self.param_shapes = {f"wb{i}": (a + 1, b) for i, (a, b) in enumerate(itertools.pairwise(sizes))}
        self.params = None

    def set_params(self, params):
        self.params = params

    def forward(self, coordinates):
        x = coordinates.expand(len(self.params["wb0"]), -1, -1)
        for i, wb in enumerate(self.params.values()):
            x = torch.cat([x, torch.ones_like(x[..., :1])], -1) @ wb
            x = x.relu() if i < len(self.params) - 1 else x + 0.5
        return x


class TransformerWriter(nn.Module):
    """Tokenizer, encoder, learned weight tokens after the data tokens, and a head for each layer of the network."""

    def __init__(self, groups=4):
        super().__init__()
        self.hyponet = HypoNetwork((6, 8, 8, 2))
        self.tokenizer = nn.Linear(5, 12)
        self.encoder = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True, norm_first=True)
        self.base_params, self.wtoken_postfc, self.wtoken_rng = nn.ParameterDict(), nn.ModuleDict(), {}
        count = 0
        for name, (rows, columns) in self.hyponet.param_shapes.items():
            self.base_params[name] = nn.Parameter(torch.randn(rows, columns) / rows**0.5)
            self.wtoken_postfc[name] = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, rows - 1))
            g = min(groups, columns)
            self.wtoken_rng[name] = (count, count + g)
            count += g
        self.wtokens = nn.Parameter(torch.randn(count, 12))

    def forward(self, data):
        tokens = torch.cat([self.tokenizer(data), self.wtokens.expand(len(data), -1, -1)], 1)
        read = self.encoder(tokens)[:, -len(self.wtokens) :]
        params = {}
        for name, (start, stop) in self.wtoken_rng.items():
            wb = self.base_params[name].expand(len(data), -1, -1)
            x = self.wtoken_postfc[name](read[:, start:stop]).mT
            w = F.normalize(wb[:, :-1] * x.repeat(1, 1, wb.shape[2] // x.shape[2]), dim=1)
            params[name] = torch.cat([w, wb[:, -1:]], 1)
        self.hyponet.set_params(params)
        return self.hyponet


class HyperNetwork(nn.Module):
    """One small network for each parameter of a network; returns an ordered dict of batched parameters.

    Each small network uses one module of ReLU in all of its layers, so that only its blocks run once.
    """

    def __init__(self, latent, hidden, hypo):
        super().__init__()
        self.names, self.shapes, self.nets = [], [], nn.ModuleList()
        for name, parameter in hypo.named_parameters():
            self.names.append(name)
            self.shapes.append(parameter.shape)
            last = nn.Linear(hidden, parameter.numel())
            relu = nn.ReLU(inplace=True)
            blocks = [nn.Sequential(nn.Linear(a, hidden), relu) for a in (latent, hidden)]
            self.nets.append(nn.Sequential(*blocks, nn.Sequential(last)))

    def forward(self, z):
        params = OrderedDict()
        for name, net, shape in zip(self.names, self.nets, self.shapes, strict=True):
            params[name] = net(z).reshape(-1, *shape)
        return params


class Siren(nn.Module):
    """Sines of batched Linear layers; takes its parameters as an argument and returns a dict."""

    def __init__(self, hidden=5, out=3):
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(2, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, out)])

    def forward(self, model_input, params=None):
        x = model_input["coords"]
        for i in range(3):
            x = x.matmul(params[f"net.{i}.weight"].mT)
            x += params[f"net.{i}.bias"].unsqueeze(-2)
            x = torch.sin(3 * x) if i < 2 else x
        return {"model_in": model_input["coords"], "model_out": x}


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    writer = TransformerWriter().double().eval()
    coordinates, data = torch.randn(7, 6, dtype=torch.float64), torch.randn(3, 4, 5, dtype=torch.float64)

    def network(params):
        writer.hyponet.set_params(params)
        return writer.hyponet(coordinates).mT  # (B, channels, points)

    heads = [f"wtoken_postfc.wb{i}" for i in range(3)]
    return WrittenWeights(writer, network, heads, write=lambda x: writer(x).params), data, coordinates


@pytest.fixture
def hyper():
    torch.manual_seed(1)
    siren = Siren().double()
    writer = HyperNetwork(4, 6, siren).double()
    coordinates, z = torch.rand(9, 2, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    network = lambda params: siren({"coords": coordinates.expand(len(params["net.0.bias"]), -1, -1)}, params)[
        "model_out"
    ]
    return WrittenWeights(writer, network, [f"nets.{i}.1" for i in range(6)]), z, coordinates


def integrated(function, tokens, start, steps):
    """Midpoint sums of (h - h0) ∂y/∂h, by a full Jacobian of one sample; tokens are lists of (tokens, dim)."""
    total = 0
    for k in range(steps):
        point = [s + (k + 0.5) / steps * (h - s) for h, s in zip(tokens, start, strict=True)]
        jacobians = torch.autograd.functional.jacobian(lambda *x: function(list(x)), tuple(point))
        parts = [(j * (h - s)).sum(-1) for j, h, s in zip(jacobians, tokens, start, strict=True)]
        total = total + torch.cat([part.movedim(-1, 0) for part in parts]) / steps
    return total


def transformer_network(writer, coordinates):
    """The released formula, from the heads' outputs of one sample to (channels, points)."""

    def outputs(tokens):
        x = coordinates
        for i, token in enumerate(tokens):
            base = writer.base_params[f"wb{i}"].detach()
            w = torch.stack([base[:-1, j] * token[j % len(token)] for j in range(base.shape[1])], 1)
            x = x @ (w / w.norm(dim=0)) + base[-1]
            x = x.clamp_min(0) if i < len(tokens) - 1 else x + 0.5
        return x.T

    return outputs


def siren_network(writer, coordinates):
    """From the hidden units of each small network, (6, 1), to (points, channels)."""

    def outputs(tokens):
        params = []
        for token, net, shape in zip(tokens, writer.nets, writer.shapes, strict=True):
            params.append((net[2][0].weight.detach() @ token[:, 0] + net[2][0].bias.detach()).reshape(shape))
        x = coordinates
        for i in range(3):
            x = x @ params[2 * i].T + params[2 * i + 1]
            x = torch.sin(3 * x) if i < 2 else x
        return x

    return outputs


def test_transformer_contributions_equal_autograd(transformer):
    model, data, coordinates = transformer
    reference = torch.randn(10, 4, 5, dtype=torch.float64)
    method = TokenContribution(model, "modulation")
    parts, delta = method.attribute(data, baselines=reference, n_steps=5, return_convergence_delta=True)
    assert parts.shape == (3, 4 + 4 + 2 + 1, 2, 7)
    start = [one.mean(0) for one in model.read(reference)]
    function = transformer_network(model.writer, coordinates)
    for b in range(3):
        tokens = [one[b] for one in model.read(data)]
        torch.testing.assert_close(function(tokens), model(data)[b].detach(), atol=1e-10, rtol=0)
        torch.testing.assert_close(parts[b, :-1], integrated(function, tokens, start, 5), atol=1e-6, rtol=0)
        torch.testing.assert_close(parts[b, -1], function(start), atol=1e-10, rtol=0)
    assert parts[:, :-1].abs().max() > 0.01
    torch.testing.assert_close(delta, parts.sum((1, 2, 3)) - model(data).detach().sum((1, 2)), atol=1e-10, rtol=0)


def test_many_steps_add_up_to_the_outputs(transformer):
    model, data, _ = transformer
    method = TokenContribution(model, "modulation")
    parts = method.attribute(data, baselines=1.0, n_steps=100)
    outputs, change = model(data).detach(), parts[:, :-1].sum(1).abs().max()
    assert change > 0.1 and (parts.sum(1) - outputs).abs().max() < 0.03 * change


def test_siren_hypernetwork_contributions_equal_autograd(hyper):
    model, z, coordinates = hyper
    reference = torch.randn(10, 4, dtype=torch.float64)
    parts = TokenContribution(model, "modulation").attribute(z, baselines=reference, n_steps=4)
    assert parts.shape == (3, 36 + 1, 9, 3)
    start = [one.mean(0)[:, None] for one in model.read(reference)]
    function = siren_network(model.writer, coordinates)
    for b in range(3):
        tokens = [one[b][:, None] for one in model.read(z)]
        torch.testing.assert_close(function(tokens), model(z)[b].detach(), atol=1e-10, rtol=0)
        torch.testing.assert_close(parts[b, :-1], integrated(function, tokens, start, 4), atol=1e-6, rtol=0)
    one_output = TokenContribution(model, "modulation").attribute(z, (2, 1), baselines=reference, n_steps=4)
    torch.testing.assert_close(one_output, parts[:, :, 2, 1], atol=1e-12, rtol=0)
    each = TokenContribution(model, "modulation").attribute(z, [(0, 0), (1, 1), (2, 2)], baselines=reference, n_steps=4)
    expected = torch.stack([parts[b, :, b, b] for b in range(3)])
    torch.testing.assert_close(each, expected, atol=1e-12, rtol=0)


def test_contributions_to_a_weight_are_exact_after_one_step(hyper):
    """The weights are linear in the hidden units: column i of the last matrix times unit i, and its bias."""
    model, z, _ = hyper
    explained = WrittenWeights(model.writer, lambda weights: weights["net.1.weight"], "nets.2.1")
    parts = TokenContribution(explained, "modulation").attribute(z, baselines=0.0, n_steps=1)
    first, second, (last,) = model.writer.nets[2]
    units = torch.relu(second[0](torch.relu(first[0](z))))
    expected = (units[:, :, None] * last.weight.T).unflatten(-1, (5, 5)).detach()
    torch.testing.assert_close(parts[:, :-1], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(parts[:, -1], last.bias.detach().view(1, 5, 5).expand(3, -1, -1), atol=1e-12, rtol=0)
    torch.testing.assert_close(parts.sum(1), model.weights(z)["net.1.weight"].detach(), atol=1e-12, rtol=0)


def test_captums_layer_methods_explain_neurons_of_the_writer(hyper):
    """Activation times gradient of one output, as WeightContribution's mode gradient has it for a NeRN."""
    model, z, coordinates = hyper
    found = LayerGradientXActivation(model, model.writer.nets[3][1]).attribute(z, target=(4, 2))
    for b in range(3):
        tokens = [one[b][:, None].requires_grad_() for one in model.read(z)]
        output = siren_network(model.writer, coordinates)(tokens)[4, 2]
        (gradient,) = torch.autograd.grad(output, tokens[3])
        torch.testing.assert_close(found[b], (gradient * tokens[3])[:, 0].detach(), atol=1e-6, rtol=0)
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize("which", ["transformer", "hyper"])
def test_one_layer_and_chunks(request, which):
    model, x, _ = request.getfixturevalue(which)
    method, options = TokenContribution(model, "modulation"), {"baselines": x[1:], "n_steps": 3}
    whole = method.attribute(x, **options)
    for limit in (1, 2, 5, 100):
        chunked = method.attribute(x, internal_batch_size=limit, **options)
        torch.testing.assert_close(chunked, whole, atol=1e-10, rtol=0)
    count = model.read(x)[0].shape[1]
    first = method.attribute(x, layer=model.names[0], **options)
    torch.testing.assert_close(first[:, :-1], whole[:, :count], atol=1e-10, rtol=0)
    torch.testing.assert_close(first[:, -1], whole[:, count:].sum(1), atol=1e-10, rtol=0)
    torch.testing.assert_close(method.attribute(x, layer=-len(model.names), **options), first, atol=1e-12, rtol=0)


def test_latents_by_index_and_float32(hyper):
    """An auto-decoder: the inputs are the indices of learned latents."""
    model = hyper[0]

    class AutoDecoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.latents, self.hyper = nn.Embedding(5, 4), copy.deepcopy(model.writer).float()

        def forward(self, index):
            return self.hyper(self.latents(index))

    network = lambda params: params["net.0.weight"].sum((1, 2))
    explained = WrittenWeights(AutoDecoder(), network, ["hyper.nets.0.1"])
    index = torch.tensor([0, 3, 4])
    parts = TokenContribution(explained, "modulation").attribute(index, baselines=torch.arange(5), n_steps=1)
    assert parts.shape == (3, 7) and parts.dtype == torch.float32
    torch.testing.assert_close(parts.sum(1), explained(index).detach(), atol=1e-5, rtol=0)


def test_state_is_restored_and_captum_attributes_to_inputs(transformer):
    model, data, _ = transformer
    state = {name: p.clone() for name, p in model.state_dict().items()}
    TokenContribution(model, "modulation").attribute(data, baselines=1.0, n_steps=2)
    assert all(torch.equal(p, state[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not any(m._forward_hooks for m in model.modules())
    copy.deepcopy(model.writer)  # fails if the network still holds tensors of a graph
    inputs, delta = IntegratedGradients(model).attribute(
        data, torch.zeros_like(data), target=(1, 3), n_steps=200, return_convergence_delta=True
    )
    assert inputs.shape == data.shape and delta.abs().max() < 0.01


def test_invalid_writers_are_refused(transformer, hyper):
    model, data, _ = transformer
    writer, network = model.writer, model.network
    with pytest.raises(TypeError, match="writer is a function and network a function; expected an nn.Module that"):
        WrittenWeights(lambda x: x, network, "0")
    with pytest.raises(LayerError, match=r"tokens are \[\]; expected one or more different modules"):
        WrittenWeights(writer, network, [])
    with pytest.raises(LayerError, match="did you mean 'tokenizer'"):
        WrittenWeights(writer, network, "tokeniser")
    with pytest.raises(TypeError, match="the writer returned a HypoNetwork; expected the generated weights by name"):
        WrittenWeights(writer, network, "tokenizer")(data)
    with pytest.raises(LayerError, match=r"network returned dict for 3 samples; expected a tensor \(B, …\)"):
        WrittenWeights(writer, lambda params: params, "tokenizer", write=model.write)(data)
    idle = WrittenWeights(hyper[0].writer, lambda params: params["net.0.bias"][:, 0], "nets.0", write=lambda z: {})
    twice = WrittenWeights(hyper[0].writer, network, "nets.0.0.1")
    with pytest.raises(LayerError, match="'nets.0.0.1' runs more than once .* hook the module around it"):
        twice.read(hyper[1])
    with pytest.raises(LayerError, match="layer 'nets.0' never ran in the forward pass"):
        idle.read(hyper[1])
    four = WrittenWeights(nn.Sequential(nn.Flatten(0, 1), nn.Linear(5, 12)), network, "1", write=lambda x: {})
    four.write = lambda x: {"w": four.writer(x)}
    with pytest.raises(
        LayerError, match=r"module '1' returned \(12, 12\) for 3 samples; expected \(B, tokens, dim\) or"
    ):
        four.read(data.float())


def test_activation_times_gradient_is_zero_for_modulations(transformer):
    """Why WeightContribution's rule has no meaning for this layout, as the page says: lengths have no effect."""
    model, data, coordinates = transformer
    tokens = [one[0].requires_grad_() for one in model.read(data)]
    output = transformer_network(model.writer, coordinates)(tokens).sum()
    gradients = torch.autograd.grad(output, tokens)
    products = torch.cat([(g * token).sum(1) for g, token in zip(gradients, tokens, strict=True)])
    assert products.abs().max() < 1e-10 < 1e-3 < max(g.abs().max() for g in gradients)


@pytest.mark.parametrize("level", ["token", "patch"])
def test_levels_without_meaning_are_refused(transformer, level):
    text = f"level '{level}' needs a TransINR, .*; use level='modulation' for tokens, or captum.attr.IntegratedGrad"
    with pytest.raises(ValueError, match=text):
        TokenContribution(transformer[0], level)


def test_invalid_arguments_are_refused(transformer):
    model, data, _ = transformer
    method = TokenContribution(model, "modulation")
    with pytest.raises(ValueError, match="baselines is None, but the mean tokens .*; give reference inputs"):
        method.attribute(data)
    with pytest.raises(ValueError, match="layer is 'wb0'; expected one of 'wtoken_postfc.wb0', .*, or -3 to 2"):
        method.attribute(data, layer="wb0", baselines=1.0)
    with pytest.raises(ValueError, match="tokens of baselines have 48 numbers and those of the inputs 96; give refer"):
        encoder = WrittenWeights(model.writer, model.network, "tokenizer", write=model.write)
        TokenContribution(encoder, "modulation").attribute(data.repeat(1, 2, 1), baselines=data)
    with pytest.raises(ValueError, match="seen and size are for a TransINR"):
        method.attribute(data, baselines=1.0, size=(4, 4))
    with pytest.raises(ValueError, match="n_steps is 0; expected at least 1"):
        method.attribute(data, baselines=1.0, n_steps=0)
    with pytest.raises(TypeError, match=r"composed\(\) needs patches of a TransINR; a WrittenWeights has attribute"):
        method.composed(data)
    with pytest.raises(
        TypeError, match="nern is a WrittenWeights; expected a NeRN, .*TokenContribution with a Written"
    ):
        WeightContribution(model)


def test_operations_without_second_derivatives_are_named():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    writer = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    write = lambda z: {"w": Once.apply(writer(z))}
    model = WrittenWeights(writer, lambda weights: weights["w"], "1", write=write)
    with pytest.raises(
        LayerError, match="along tokens: a custom autograd Function. Choose modules nearer to the weights"
    ):
        TokenContribution(model, "modulation").attribute(torch.rand(2, 3), baselines=0.0)
