"""What a NeRN really takes to store, to the byte, and what rounding the same weights would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from .convolutions import target_behind
from .nern_file import packed, sections
from .quantised import quantised

if TYPE_CHECKING:
    from .nern import NeRN


@dataclass(frozen=True)
class SizeReport:
    """Bytes of a NeRN's file, part by part, beside its target's.

    Attributes:
        represented: weights that are generated.
        parameters: of the predictor.
        relative_error: ‖Ŵ − W‖ / ‖W‖; a size says little without it, and without the accuracy, which only you can
            measure.
        predictor: bytes of its weights.
        permutation: bytes of the paths.
        kept: bytes of biases, statistics, classifier and other weights that are not generated.
        header: bytes of names, shapes and settings.
        target: bytes of a safetensors file of the target's whole state.
        int8: bytes of the same with the represented weights as int8 and a float32 scale a filter.
        int8_relative_error: of those.
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

    @property
    def total(self) -> int:
        """Bytes of the file that :meth:`NeRN.save` writes."""
        return self.predictor + self.permutation + self.kept + self.header

    @property
    def share(self) -> float:
        """Predictor parameters a represented weight; what the paper reports, without permutation and the rest."""
        return self.parameters / self.represented

    def __str__(self) -> str:
        """Three lines: sizes are never shown without the error."""
        lines = (
            ("target", self.target, 0.0),
            (f"NeRN ({self.share:.1%} of the represented weights)", self.total, self.relative_error),
            ("int8 weights", self.int8, self.int8_relative_error),
        )
        return "\n".join(
            f"{name}: {size:,} bytes ({size / self.target:.1%}), weight error {error:.4f}"
            for name, size, error in lines
        )


def size_report(nern: NeRN, dtype: torch.dtype | None = None) -> SizeReport:
    """What :meth:`NeRN.size_report` documents."""
    root = target_behind(nern.target)
    parts = {
        name: sum(t.numel() * t.element_size() for t in tensors.values())
        for name, tensors in sections(nern, dtype).items()
    }
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in root.state_dict().items()}
    baseline = quantised(nern.target, [layer.name for layer in nern.layers])
    return SizeReport(
        represented=sum(layer.weights for layer in nern.layers),
        parameters=sum(p.numel() for p in nern.predictor.parameters()),
        relative_error=nern.relative_error(),
        predictor=parts["predictor"],
        permutation=parts["order"],
        kept=parts["kept"],
        header=len(packed(nern, dtype)) - sum(parts.values()),
        target=len(save(whole)),
        int8=baseline.bytes,
        int8_relative_error=baseline.relative_error,
    )
