"""The network of a NeRN: embedding, predictor, settings, generated weights, and the safetensors file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ... import store
from ...hooks import ForwardFunc, LayerError, exclusive, find_layer
from ...inr.mlp import Layers, arguments_of, dense_layers, seeded
from .kernels import (
    Convolution,
    Crop,
    Kind,
    LayerOrder,
    Scale,
    convolutions,
    copy_target,
    kernel_coordinates,
    kernel_size_for,
    order_kernels,
    pack,
    parameter_name,
    target_behind,
    unpack,
)
from .kernels import crop as crop_kernels

Fusion = Literal["concat", "sum"]
KIND, WRITER = "nern", "NeRN.save()"


class SmoothEmbedding(nn.Module):
    r"""Sine and cosine of each coordinate at each level.

    .. math:: \gamma(p)_{d, i} = (\sin(\pi b^i p_d), \cos(\pi b^i p_d)), \quad i = 0 … L - 1

    Symbols: p_d the layer, filter or channel coordinate, b the base, L the levels. A base below 1 is smooth:
    neighbouring indices get similar rows. The fusion "concat" concatenates the three coordinates, (…, 3 · 2L); "sum"
    adds them, (…, 2L). Angles and results are float32 for any dtype of the coordinates, because the frequencies of the
    released code are float32; a float64 table differs by 1e-5.

    Raises:
        ValueError: a base that is not positive, no levels, or an unknown fusion.

    Example:
        >>> SmoothEmbedding(0.5, 2)(torch.tensor([[0.0, 1.0, 2.0]])).shape
        torch.Size([1, 12])

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.1, and the released code.
    """

    frequencies: Tensor

    def __init__(self, base: float = 0.85, levels: int = 20, fusion: Fusion = "concat") -> None:
        super().__init__()
        if base <= 0 or levels < 1:
            raise ValueError(f"base is {base} and levels is {levels}; expected base > 0 and at least 1 level.")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion is {fusion!r}; expected 'concat' or 'sum'.")
        self.base, self.levels, self.fusion = base, levels, fusion
        # Powers of the float32 base, each rounded once to float32: torch.pow in float32 rounds differently on different
        # processors. One unit in the last place of 1.25^79 changes an angle by more than 2π, so the same file would
        # give other weights on another machine.
        single = float(np.float32(base))
        powers = torch.tensor([single**level for level in range(levels)], dtype=torch.float32)
        self.register_buffer("frequencies", powers, persistent=False)

    @property
    def out_features(self) -> int:
        """Numbers for each kernel."""
        return 2 * self.levels * self.groups

    @property
    def groups(self) -> int:
        """Number of coordinates that are separate in the result: 3, or 1 for "sum"."""
        return 3 if self.fusion == "concat" else 1

    def forward(self, coordinates: Tensor) -> Tensor:
        """Map (kernels, 3) to (kernels, out_features): coordinate-major, then level, then sine and cosine."""
        angle = coordinates.float()[..., None] * self.frequencies.float() * torch.pi
        rows = torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
        return rows.flatten(-2) if self.fusion == "concat" else rows.sum(-2)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"base={self.base}, levels={self.levels}, fusion={self.fusion!r}"


class KernelPredictor(Layers):
    r"""Embedding → (linear → ReLU) x (blocks − 1) → the K² numbers of a kernel.

    .. math:: P(k) = W_Q\, \sigma(W_{Q-1} \cdots \sigma(W_1 \gamma(k) + b_1) \cdots) + b_Q

    Children, in order: ``linear1``, ``activation1``, …, ``output``: Q = ``blocks`` Linear layers, of which the hidden
    ones have h = ``hidden`` units, for K = ``kernel_size`` and embedded coordinates of ``in_features`` numbers. It has
    (in + 1) h + (Q − 2)(h² + h) + K² (h + 1) parameters. A ``kernel_size`` of one to three sides takes their product in
    place of K². A seed of None takes torch's global generator.

    Raises:
        ValueError: fewer than 2 blocks, or sizes below 1.

    Example:
        >>> sum(p.numel() for p in KernelPredictor(60, 32).parameters())
        5417

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.1; it always has 5 blocks.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int = 40,
        blocks: int = 5,
        kernel_size: int | tuple[int, ...] = 3,
        seed: int | None = None,
    ) -> None:
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if blocks < 2 or min(in_features, hidden, *sides) < 1:
            raise ValueError(
                f"got in_features {in_features}, hidden {hidden}, blocks {blocks}, kernel_size {kernel_size}; expected "
                "at least 2 blocks (a hidden layer and the output) and sizes of at least 1."
            )
        with seeded(seed):
            modules = dense_layers(in_features, hidden, blocks, math.prod(sides))
        super().__init__(modules)


class KernelNetwork(nn.Module):
    """Everything of a :class:`NeRN` but its training; the arguments and attributes are documented there."""

    target: ForwardFunc
    predictor: KernelPredictor

    def __init__(
        self,
        target: ForwardFunc,
        layers: Sequence[nn.Module | str] | None = None,
        *,
        base: float = 0.85,
        levels: int = 20,
        fusion: Fusion = "concat",
        hidden: int = 40,
        blocks: int = 5,
        kernel_size: int | Sequence[int] | None = None,
        permutation: Kind = "cross-filter",
        crop: Crop = "center",
        coordinates: Scale = "index",
        seed: int = 0,
        orders: Sequence[LayerOrder] | None = None,
    ) -> None:
        super().__init__()
        with exclusive(), torch.inference_mode(False):  # parameters made in inference mode cannot be trained
            self.config = arguments_of(locals(), "target", "layers", "orders")  # as JSON can hold them
            self.layers = convolutions(target, layers)
            self.crop, self.permutation = crop, permutation
            self.predicted_size = kernel_size_for(self.layers, kernel_size)
            same = len(set(self.predicted_size)) == 1
            self.kernel_size = self.predicted_size[0] if same else self.predicted_size
            self.config["kernel_size"] = self.kernel_size
            object.__setattr__(self, "target", target)  # not a submodule: its weights are not part of this network
            # An unknown method raises here.
            crop_kernels(torch.zeros(1, *self.predicted_size), self.predicted_size, crop)
            target_weights = self.target_weights()
            self.orders = tuple(
                orders or (order_kernels(target_weights[layer.name], permutation) for layer in self.layers)
            )
            rows = kernel_coordinates([layer.shape for layer in self.layers], coordinates)
            rows_of_layers = rows.split([layer.kernels for layer in self.layers])
            self._coordinates: dict[str, Tensor] = {
                layer.name: layer_rows[order.ranks(layer.shape)]
                for layer, order, layer_rows in zip(self.layers, self.orders, rows_of_layers, strict=True)
            }
            weight = target_weights[self.layers[0].name]
            self.embedding = SmoothEmbedding(base, levels, fusion)
            self.predictor = KernelPredictor(self.embedding.out_features, hidden, blocks, self.predicted_size, seed)
            self.to(weight.device)
            self.predictor.to(weight.dtype)

    def layer(self, layer: nn.Module | str | Convolution) -> Convolution:
        """Return the represented layer of a module or a dotted name."""
        if isinstance(layer, Convolution):
            return layer
        with exclusive():
            module, root = find_layer(self.target, layer), target_behind(self.target)
            weight = module._parameters.get("weight")
            for one in self.layers:
                if weight is not None and root.get_submodule(one.name)._parameters["weight"] is weight:
                    return one
        name = next((name for name, other in root.named_modules() if other is module), str(layer))
        raise LayerError(
            f"layer {name!r} is a {type(module).__name__} that this NeRN does not represent; expected one of "
            f"{', '.join(repr(one.name) for one in self.layers)}."
        )

    def coordinates(self, layer: nn.Module | str | Convolution) -> Tensor:
        """Return the coordinates of the kernels of a layer, in the order of its weight: (kernels, 3) float64."""
        return self._coordinates[self.layer(layer).name]

    def embedded(self, layer: nn.Module | str | Convolution, piece: slice = slice(None)) -> Tensor:
        """Return the inputs of the predictor for a layer, or for a slice of its kernels: (kernels, in_features)."""
        weight = next(self.predictor.parameters())
        places = self.coordinates(layer)[piece].float().to(self.embedding.frequencies.device)
        rows: Tensor = self.embedding(places).to(weight)
        return rows

    def predicted(self, layer: nn.Module | str | Convolution) -> Tensor:
        """Return the outputs of the predictor for a layer, not cropped: (kernels, K, K) or (kernels, *sides)."""
        kernels: Tensor = self.predictor(self.embedded(layer)).unflatten(-1, self.predicted_size)
        return kernels

    def weights(self) -> dict[str, Tensor]:
        """Return Ŵ: the generated weight of every represented layer, by name; differentiable."""
        return {layer.name: self.cut(self.predicted(layer), layer) for layer in self.layers}

    forward = weights

    def cut(self, predicted: Tensor, layer: Convolution, *, chosen_by: Tensor | None = None) -> Tensor:
        """Crop predictions (…, kernels, *sides) to weights (…, F, C, *size); ``chosen_by`` as in :func:`crop`."""
        dims = len(self.predicted_size)
        kernels = crop_kernels(predicted, layer.size_in(dims), self.crop, chosen_by=chosen_by)
        return kernels.reshape(*kernels.shape[: -1 - dims], *layer.shape)

    @exclusive()  # a call in another thread may have exchanged the weights
    def target_weights(self) -> dict[str, Tensor]:
        """Return W: the target's weight of every represented layer, by name, detached."""
        root = target_behind(self.target)
        return {layer.name: root.get_parameter(parameter_name(layer.name)).detach() for layer in self.layers}

    def relative_error(self) -> float:
        r"""Return ‖Ŵ − W‖ / ‖W‖ over all represented weights."""
        with torch.no_grad():
            generated, targets = self.weights(), self.target_weights()
            error = sum(
                (generated[name] - targets[name].to(generated[name])).double().square().sum() for name in targets
            )
            return float((error / sum(w.double().square().sum() for w in targets.values())) ** 0.5)

    def rebuild(self) -> nn.Module:
        """Return a copy of the target with the generated weights: a plain module, independent of this one."""
        with exclusive(), torch.no_grad():
            model = copy_target(self.target)
            for name, weight in self.weights().items():
                model.get_parameter(parameter_name(name)).copy_(weight)
        return model

    def save(self, path: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write one safetensors file, atomically: settings, predictor, permutation, and the rest of the target.

        A missing folder is created. The predictor's weights have ``dtype`` in the file; float16 halves their size.

        Raises:
            StoreError: the file cannot be written.
        """
        tensors, note = file_content(self, dtype)
        return store.write_tensors(path, tensors, kind=KIND, metadata=note)

    @classmethod
    def load(cls, path: str | Path, target: nn.Module) -> Self:
        """Read what :meth:`save` wrote.

        The target is a module of the same architecture with any weights; a copy of it gets the biases, statistics and
        other tensors of the file. Error maps compare with its convolutions, which are not in the file.

        Raises:
            FileNotFoundError, StoreError: no such file; a file of something else or of a newer version, an incomplete
                or changed file, or a target of another architecture (the text names what differs).
        """
        tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
        contents: dict[str, dict[str, Tensor]] = {"predictor": {}, "order": {}, "kept": {}}
        with store.consistent(path, WRITER):
            layers = [Convolution(name, tuple(shape)) for name, shape in note["layers"]]
            for name, value in tensors.items():
                section, _, rest = name.partition(".")
                contents[section][rest] = value
        model = copy_target(target)
        _check_target(path, model, layers, contents["kept"])
        model.load_state_dict(contents["kept"], strict=False)
        with store.consistent(path, WRITER):
            kind = note["config"]["permutation"]
            orders = [unpack(contents["order"].get(layer.name), layer.shape, kind) for layer in layers]
            nern = cls(model, [layer.name for layer in layers], **note["config"], orders=orders)
            store.check_state(path, nern.predictor.state_dict(), contents["predictor"])
            nern.predictor.load_state_dict(contents["predictor"])
            nern.predictor.to(getattr(torch, note["dtype"]))
        return nern


@exclusive()  # a call in another thread may have exchanged the target's weights
def file_content(nern: KernelNetwork, dtype: torch.dtype | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file (the predictor, the permutation, the rest of the target) and its metadata."""
    orders = {layer.name: pack(order) for layer, order in zip(nern.layers, nern.orders, strict=True)}
    tensors = {f"predictor.{name}": to_cpu(value, dtype) for name, value in nern.predictor.state_dict().items()}
    tensors |= {f"order.{name}": bits for name, bits in orders.items() if bits is not None}
    tensors |= {f"kept.{name}": v for name, v in state_without_layers(target_behind(nern.target), nern.layers).items()}
    dtype_name = str(next(nern.predictor.parameters()).dtype).removeprefix("torch.")
    layers = [[layer.name, list(layer.shape)] for layer in nern.layers]
    return tensors, {"config": nern.config, "layers": layers, "dtype": dtype_name}


def state_without_layers(root: nn.Module, layers: tuple[Convolution, ...]) -> dict[str, Tensor]:
    """Return the state of a target without the represented weights, whatever names they have."""
    generated = {id(root.get_parameter(parameter_name(layer.name))) for layer in layers}
    names = {name for name, p in root.named_parameters(remove_duplicate=False) if id(p) in generated}
    return {name: to_cpu(value) for name, value in root.state_dict().items() if name not in names}


def _check_target(path: str | Path, root: nn.Module, layers: list[Convolution], remaining: dict[str, Tensor]) -> None:
    shapes = {name: tuple(value.shape) for name, value in root.state_dict().items()}
    stored = {parameter_name(layer.name): tuple(layer.shape) for layer in layers}
    stored |= {name: tuple(value.shape) for name, value in remaining.items()}
    differences = [
        f"{name} {shapes.get(name, 'missing')} instead of {shape}"
        for name, shape in stored.items()
        if shapes.get(name) != shape
    ]
    # A shared weight has several names, and the file may have only some of them.
    shared = {id(p) for name, p in root.named_parameters(remove_duplicate=False) if name in stored}
    names = dict(root.named_parameters(remove_duplicate=False))
    differences += [
        f"{name} {shapes[name]} that is not in the file"
        for name in shapes
        if name not in stored and id(names.get(name)) not in shared
    ]
    if differences:
        some = "; ".join(differences[:4]) + (f"; and {len(differences) - 4} more" if len(differences) > 4 else "")
        raise store.StoreError(f"{path} represents another network than this {type(root).__name__}: it has {some}.")


def to_cpu(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a contiguous copy on the CPU; ``dtype`` applies to floats."""
    return value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
