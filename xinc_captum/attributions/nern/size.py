"""Size of a NeRN's file, compared with weights rounded to int8; pruned and rounded predictors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ... import store
from ...hooks import ForwardFunc, exclusive, protect
from .kernel_network import KIND, KernelNetwork, file_content, state_without_layers, to_cpu
from .kernels import convolutions, copy_target, parameter_name, target_behind, to_bits, to_bytes
from .losses import Distillation, check_images


class QuantizedNetwork(NamedTuple):
    """A network with rounded weights, as floats.

    Attributes:
        bytes: size of a safetensors file with the integers, the scales and the rest of the network.
        relative_error: ‖W − Ŵ‖ / ‖W‖ over the rounded weights.
    """

    model: nn.Module
    bytes: int
    relative_error: float


def quantize(
    target: ForwardFunc, layers: Sequence[nn.Module | str] | None = None, bits: int = 8, *, all_weights: bool = False
) -> QuantizedNetwork:
    r"""Round the weights of convolutions to integers of ``bits`` bits, with one scale for each filter.

    .. math:: \hat W_f = s_f \,\mathrm{round}(W_f / s_f), \qquad s_f = \max |W_f| / (2^{bits - 1} - 1)

    Scales are float32; integers are packed, for example two of 4 bits into a byte. With ``all_weights`` every parameter
    of two or more dims is rounded, including those of linear layers, but no biases and buffers: this is the size of a
    quantized file of the whole network.

    Raises:
        LayerError, ValueError: invalid layers, as for :class:`NeRN`; bits outside 2 to 8.

    Example:
        >>> found = quantize(nn.Sequential(nn.Conv2d(3, 8, 3)), bits=4)
        >>> found.relative_error < 0.2
        True

    Source: per-channel symmetric rounding to nearest, e.g. Krishnamoorthi (arXiv 1806.08342), sec. 2.
    """
    _check_bits(bits)
    represented_layers = convolutions(target, layers)
    model = copy_target(target)
    weights = {layer.name: model.get_parameter(parameter_name(layer.name)) for layer in represented_layers}
    if all_weights:
        represented = {id(weight) for weight in weights.values()}
        weights |= {
            name: weight
            for name, weight in model.named_parameters()
            if weight.dim() > 1 and weight.is_floating_point() and id(weight) not in represented
        }
    changed = {id(weight) for weight in weights.values()}
    shared = {name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in changed}
    remaining = state_without_layers(model, represented_layers)
    tensors = {f"kept.{name}": value for name, value in remaining.items() if name not in shared}
    error = total = 0.0
    with torch.no_grad():
        for name, weight in weights.items():
            scale, integers = round_weights(weight, bits)
            dequantized = (integers * scale).to(weight)
            error += float((dequantized - weight).double().square().sum())
            total += float(weight.double().square().sum())
            weight.copy_(dequantized)
            tensors[f"scale.{name}"] = to_cpu(scale.flatten().float())
            tensors[f"weight.{name}"] = pack_integers(integers, bits)
    return QuantizedNetwork(model, len(save(tensors)), (error / total) ** 0.5 if total else 0.0)


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; expected 2 to 8.")


def round_weights(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return a scale for each first index, (F, 1, …), and the integers as floats, shaped like the weight."""
    most = 2 ** (bits - 1) - 1
    flat = weight.detach().flatten(1).float()
    scale = (flat.abs().amax(1) / most).clamp_min(torch.finfo(torch.float32).tiny)
    scale = scale.view(-1, *[1] * (weight.dim() - 1))
    return scale, (weight.detach().float() / scale).round().clamp(-most, most)


def pack_integers(integers: Tensor, bits: int) -> Tensor:
    """Pack integers into bytes: two's complement with ``bits`` bits for each."""
    return to_bytes(to_bits(integers.flatten().long().cpu(), bits))


N = TypeVar("N", bound=KernelNetwork)


class CompressedNeRN(NamedTuple, Generic[N]):
    """A copy of a NeRN with a pruned and rounded predictor, as floats.

    Attributes:
        bytes: size of a safetensors file with the retained integers, one bit for each weight that marks whether it is
            retained, scales, biases, the permutation, and the rest of the target.
        relative_error: ‖Ŵ − W‖ / ‖W‖ of the generated weights.
    """

    nern: N
    bytes: int
    relative_error: float


def compress(nern: N, *, keep: float = 1.0, bits: int = 8) -> CompressedNeRN[N]:
    r"""Set the smallest weights of the predictor to zero and round the others; biases stay floats.

    .. math:: \theta_{ij} \to s_i\, \mathrm{round}(\theta_{ij} / s_i)\, [\,|\theta_{ij}| \ge t\,]

    Symbols: θ_ij an entry of a matrix; t the threshold that the share ``keep`` of all entries reaches; [·] 1 if true,
    else 0; s_i a scale for each neuron. Nothing is fitted again.

    Raises:
        ValueError: a share ``keep`` outside (0, 1], or bits outside 2 to 8.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> nern = NeRN(torch.nn.Conv2d(3, 4, 3))
        >>> compress(nern, bits=8).bytes < nern.size_report().total
        True

    Source: Ashkenazi et al. (ICLR 2023), second application, in our interpretation, because its code was not released;
    threshold: Han et al. (NeurIPS 2015).
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}; expected a share in (0, 1].")
    _check_bits(bits)
    compressed = copy.deepcopy(nern)
    contents, _ = file_content(compressed)
    tensors = {name: value for name, value in contents.items() if not name.startswith("predictor.")}
    matrices = {name: p for name, p in compressed.predictor.named_parameters() if p.dim() == 2}
    sizes = torch.cat([p.detach().abs().flatten().float() for p in matrices.values()]).sort().values
    threshold = sizes[len(sizes) - max(1, round(keep * len(sizes)))]
    with torch.no_grad():
        for name, p in compressed.predictor.named_parameters():
            if name not in matrices:
                tensors[name] = to_cpu(p)
                continue
            retained = p.abs().float() >= threshold
            scale, integers = round_weights(torch.where(retained, p, torch.zeros_like(p)), bits)
            p.copy_((integers * scale).to(p))
            tensors[f"scale.{name}"] = to_cpu(scale.flatten().float())
            tensors[f"weight.{name}"] = pack_integers(integers[retained], bits)
            if keep < 1:
                tensors[f"stays.{name}"] = pack_integers(retained.flatten(), 1)
    return CompressedNeRN(compressed, len(save(tensors)), compressed.relative_error())


@dataclass(frozen=True)
class SizeReport:
    """Bytes of the sections of a NeRN's file, its weight error and its agreement, with those of the target and int8.

    Attributes:
        represented: weights that are generated.
        parameters: of the predictor.
        relative_error: ‖Ŵ − W‖ / ‖W‖; sizes can be compared only together with this error.
        predictor: bytes of its weights.
        permutation: bytes of the paths.
        kept: bytes of biases, statistics, classifier and other weights that are not generated.
        header: bytes of names, shapes and settings.
        target: bytes of a safetensors file of the target's whole state.
        int8: bytes of the same with the *represented* weights as int8 (:func:`quantize`).
        int8_all: bytes of the same with ``all_weights`` as int8.
        int8_relative_error, int8_all_relative_error: of the rounded weights, over these.
        agreement: share of images for which the rebuilt network predicts the target's class, right or wrong; None if
            not measured. Accuracy needs labels, which a NeRN does not use.
        int8_agreement, int8_all_agreement: with the represented or all weights as int8.
        judged_on: the images on which agreement was measured, such as "135 pictures"; empty if not measured.
    """

    represented: int
    parameters: int
    relative_error: float
    predictor: int
    permutation: int
    kept: int
    header: int
    target: int
    int8: int
    int8_relative_error: float
    int8_all: int
    int8_all_relative_error: float
    agreement: float | None = None
    int8_agreement: float | None = None
    int8_all_agreement: float | None = None
    judged_on: str = ""

    @property
    def total(self) -> int:
        """Bytes of the file that :meth:`NeRN.save` writes."""
        return self.predictor + self.permutation + self.kept + self.header

    @property
    def share(self) -> float:
        """Predictor parameters divided by represented weights, the paper's measure of size."""
        return self.parameters / self.represented

    def __str__(self) -> str:
        lines = (
            ("target", self.target, 0.0, 1.0 if self.judged_on else None),
            (f"NeRN ({self.share:.1%} of the represented weights)", self.total, self.relative_error, self.agreement),
            ("int8, represented weights only", self.int8, self.int8_relative_error, self.int8_agreement),
            ("int8, all weights", self.int8_all, self.int8_all_relative_error, self.int8_all_agreement),
        )
        return "\n".join(
            f"{name}: {size:,} bytes ({size / self.target:.1%}), weight error {error:.4f}, {self._agreement(share)}"
            for name, size, error, share in lines
        )

    def _agreement(self, share: float | None) -> str:
        if share is None:
            return "agreement not measured (give size_report pictures)"
        return f"agrees with the target on {share:.1%} of {self.judged_on}"


@exclusive()
def size_report(
    nern: KernelNetwork, images: Tensor | None = None, dtype: torch.dtype | None = None, kind: str = "pictures"
) -> SizeReport:
    """Compute the report of :meth:`NeRN.size_report`; ``kind`` is the name of the images in its text."""
    root = target_behind(nern.target)
    tensors, note = file_content(nern, dtype)
    bytes_of = {
        section: sum(t.numel() * t.element_size() for name, t in tensors.items() if name.startswith(f"{section}."))
        for section in ("predictor", "order", "kept")
    }
    int8 = quantize(nern.target, [layer.name for layer in nern.layers])
    all_int8 = quantize(nern.target, [layer.name for layer in nern.layers], all_weights=True)
    shares: list[float | None] = [None, None, None]
    if images is not None:
        with protect(nern.target), torch.no_grad():
            root.eval()
            model, weights = Distillation(nern.target, root, nern.layers), nern.weights()
            images = check_images(images).to(next(iter(weights.values())))
            rounded = ({name: p.detach() for name, p in one.model.named_parameters()} for one in (int8, all_int8))
            candidates = [(weights, {}), *(({}, parameters) for parameters in rounded)]
            shares = [model.agreement(w, images, parameters=parameters)[0] for w, parameters in candidates]
    return SizeReport(
        represented=sum(layer.weights for layer in nern.layers),
        parameters=sum(p.numel() for p in nern.predictor.parameters()),
        relative_error=nern.relative_error(),
        predictor=bytes_of["predictor"],
        permutation=bytes_of["order"],
        kept=bytes_of["kept"],
        header=store.tensor_file_bytes(tensors, kind=KIND, metadata=note) - sum(bytes_of.values()),
        target=len(save({name: to_cpu(value) for name, value in root.state_dict().items()})),
        int8=int8.bytes,
        int8_relative_error=int8.relative_error,
        int8_all=all_int8.bytes,
        int8_all_relative_error=all_int8.relative_error,
        agreement=shares[0],
        int8_agreement=shares[1],
        int8_all_agreement=shares[2],
        judged_on="" if images is None else f"{len(images):,} {kind}",
    )
