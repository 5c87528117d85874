"""The size of a NeRN's file in bytes, its weight error and its agreement, beside those of rounded weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from ...hooks import exclusive, guarded
from .convolutions import parameter_name, target_behind
from .distillation import Distillation
from .images import checked
from .nern_file import file_bytes, sections
from .quantised import quantised

if TYPE_CHECKING:
    from .nern import NeRN


@dataclass(frozen=True)
class SizeReport:
    """Bytes of a NeRN's file, part by part, with its weight error and its answers, beside its target's and int8's.

    Attributes:
        represented: weights that are generated.
        parameters: of the predictor.
        relative_error: ‖Ŵ − W‖ / ‖W‖; a size says little without it.
        predictor: bytes of its weights.
        permutation: bytes of the paths.
        kept: bytes of biases, statistics, classifier and other weights that are not generated.
        header: bytes of names, shapes and settings.
        target: bytes of a safetensors file of the target's whole state.
        int8: bytes of the same with the *represented* weights as int8 and a float32 scale a filter; all others stay
            float32, as in the NeRN's file.
        int8_relative_error: of the represented weights as int8.
        int8_all: bytes of a file in which *all* weights of two or more dims are int8, with a float32 scale for each
            first index; biases and buffers stay as they are.
        int8_all_relative_error: of all weights as int8, over these.
        agreement: share of pictures that the rebuilt network puts into the target's class, right or wrong; None where
            it was not measured. Accuracy needs labels, which a NeRN never sees, so that only you can measure it.
        int8_agreement: the same with the represented weights as int8.
        int8_all_agreement: the same with all weights as int8.
        judged_on: what it was measured on, such as "135 pictures"; empty where it was not.
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
        """Predictor parameters a represented weight; what the paper reports, without permutation and the rest."""
        return self.parameters / self.represented

    def __str__(self) -> str:
        """Four lines: bytes, weight error and agreement are never shown apart."""
        lines = (
            ("target", self.target, 0.0, 1.0 if self.judged_on else None),
            (f"NeRN ({self.share:.1%} of the represented weights)", self.total, self.relative_error, self.agreement),
            ("int8, represented weights only", self.int8, self.int8_relative_error, self.int8_agreement),
            ("int8, all weights", self.int8_all, self.int8_all_relative_error, self.int8_all_agreement),
        )
        return "\n".join(
            f"{name}: {size:,} bytes ({size / self.target:.1%}), weight error {error:.4f}, {self._answers(share)}"
            for name, size, error, share in lines
        )

    def _answers(self, share: float | None) -> str:
        if share is None:
            return "agreement not measured (give size_report pictures)"
        return f"agrees with the target on {share:.1%} of {self.judged_on}"


@exclusive()
def size_report(
    nern: NeRN, images: Tensor | None = None, dtype: torch.dtype | None = None, kind: str = "pictures"
) -> SizeReport:
    """What :meth:`NeRN.size_report` documents; ``kind`` is what the images are called."""
    root = target_behind(nern.target)
    parts = {
        name: sum(t.numel() * t.element_size() for t in tensors.values())
        for name, tensors in sections(nern, dtype).items()
    }
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in root.state_dict().items()}
    baseline = quantised(nern.target, [layer.name for layer in nern.layers])
    everything = quantised(nern.target, [layer.name for layer in nern.layers], all_weights=True)
    names = {layer.name: parameter_name(layer.name) for layer in nern.layers}
    shares: list[float] | list[None] = [None, None, None]
    if images is not None:
        rounded = {name: baseline.model.get_parameter(parameter).detach() for name, parameter in names.items()}
        parameters = {name: value.detach() for name, value in everything.model.named_parameters()}
        with torch.no_grad():
            shares = _agreements(nern, [(nern.weights(), {}), (rounded, {}), ({}, parameters)], images)
    return SizeReport(
        represented=sum(layer.weights for layer in nern.layers),
        parameters=sum(p.numel() for p in nern.predictor.parameters()),
        relative_error=nern.relative_error(),
        predictor=parts["predictor"],
        permutation=parts["order"],
        kept=parts["kept"],
        header=file_bytes(nern, dtype) - sum(parts.values()),
        target=len(save(whole)),
        int8=baseline.bytes,
        int8_relative_error=baseline.relative_error,
        int8_all=everything.bytes,
        int8_all_relative_error=everything.relative_error,
        agreement=shares[0],
        int8_agreement=shares[1],
        int8_all_agreement=shares[2],
        judged_on="" if images is None else f"{len(images):,} {kind}",
    )


def _agreements(
    nern: NeRN, candidates: list[tuple[dict[str, Tensor], dict[str, Tensor]]], images: Tensor
) -> list[float]:
    """Return how often the target gives the same class under each candidate as under its own weights.

    A candidate is the weights of represented layers and other parameters, under their full names.
    """
    root = target_behind(nern.target)
    weight = next(iter(candidates[0][0].values()))
    with guarded(nern.target):
        root.eval()
        model = Distillation(nern.target, root, nern.layers)
        return [
            model.agreement(weights, checked(images).to(weight), parameters=parameters).share
            for weights, parameters in candidates
        ]
