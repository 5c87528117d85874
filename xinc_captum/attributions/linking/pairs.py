"""Pairs of a representation and the latent of the picture that it represents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """What :func:`make_pairs` found; tensors are plain and detached.

    Attributes:
        representations: (n, units).
        latents: (n, latent_dim).
        classes: (n,) the class each picture was drawn of, or the model's answer where the generator knows none.
        logits: (n, outputs) the model's answer.
        kept: share of the pictures drawn that became pairs.
        manifest: how they came about.
    """

    representations: Tensor
    latents: Tensor
    classes: Tensor
    logits: Tensor
    kept: float
    manifest: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.latents)

    def take(self, rows: Tensor) -> Pairs:
        """The pairs named by an index or a mask."""
        rows = rows.to(self.latents.device)
        held = (self.representations, self.latents, self.classes, self.logits)
        r, w, c, logits = (t[rows.to(t.device)] for t in held)
        return Pairs(r, w, c, logits, self.kept, self.manifest)

    def split(self, held_out: float = 0.2, *, seed: int = 0) -> tuple[Pairs, Pairs]:
        """Pairs to fit and pairs to hold out, drawn class by class.

        Args:
            held_out: share of each class that is held out.
            seed: another seed holds out others.

        Raises:
            ValueError: a share outside (0, 1), or so few pairs that one side is left empty.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"held_out is {held_out}; wanted a share between 0 and 1.")
        generator = torch.Generator().manual_seed(seed)
        away = torch.zeros(len(self), dtype=torch.bool)
        classes = self.classes.cpu()
        for c in classes.unique().tolist():
            own = (classes == c).nonzero()[:, 0]
            away[own[torch.randperm(len(own), generator=generator)[: round(held_out * len(own))]]] = True
        if away.all() or not away.any():
            raise ValueError(f"holding out {held_out:g} of {len(self)} pairs leaves one side empty; make more pairs.")
        return self.take(~away), self.take(away)
