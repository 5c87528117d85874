"""Link, generator and classifier closed into a loop: representation → latent → picture → representation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...batch import chunks
from ...generators.protocol import Generator, pictures_in_unit_range
from .latent_link import LatentLink

Look = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Loop:
    r"""What is drawn from representations, and what the classifier sees in it.

    .. math:: r \mapsto w = \mathrm{link}(r) \mapsto x = G(w) \mapsto (r', f) = \mathrm{classifier}(x)

    Args:
        link: a fitted link.
        generator: what draws.
        look: pictures in [0, 1] and, for each, the row of the call it belongs to (row-aligned arguments of the model
            are taken along) to representations (n, units) and scores (n, K).
        latent: a latent of the generator; its dtype and device are those that ``synthesize`` wants.
        classes: of the rows, (rows,), where the link wants them.
        limit: pictures in one forward pass.
    """

    link: LatentLink
    generator: Generator
    look: Look
    latent: Tensor
    classes: Tensor | None = None
    limit: int = 256

    def latents(self, r: Tensor, rows: Tensor) -> Tensor:
        """(n, units) of rows (n,) to (n, latent_dim), as the generator takes them."""
        latents: Tensor = self.link(r.to(self.link.r_sd), self.classes_of(rows))
        return latents.to(self.latent)

    def classes_of(self, rows: Tensor) -> Tensor | None:
        """Classes of the rows (n,), where the link wants them."""
        return None if self.classes is None else self.classes[rows.to(self.classes.device)]

    def draw(self, latents: Tensor) -> Tensor:
        """(n, latent_dim) to pictures in [0, 1], (n, C, H, W)."""
        return pictures_in_unit_range(self.generator, latents.to(self.latent)).clamp(0, 1)

    def shown(self, latents: Tensor, rows: Tensor) -> "Shown":
        """Draw, look, and keep all three, without gradients, ``limit`` at a time."""
        parts: list[Shown] = []
        with torch.no_grad():
            for start, stop in chunks(len(latents), self.limit):
                pictures = self.draw(latents[start:stop])
                parts.append(Shown(latents[start:stop], pictures, *self.look(pictures, rows[start:stop])))
        return Shown.joined(parts)


@dataclass(frozen=True)
class Shown:
    """Latents, their pictures, and what the classifier saw in these; rows first."""

    latents: Tensor
    pictures: Tensor
    representations: Tensor
    scores: Tensor

    @classmethod
    def joined(cls, parts: "list[Shown]") -> "Shown":
        """One after the other."""
        return parts[0] if len(parts) == 1 else cls(*(torch.cat([getattr(p, name) for p in parts]) for name in _NAMES))

    def take(self, index: Tensor | slice) -> "Shown":
        """The rows of an index or a mask."""
        return Shown(*(getattr(self, name)[index] for name in _NAMES))

    def put(self, index: Tensor, other: "Shown") -> "Shown":
        """Rows ``index`` replaced by those of another."""
        return Shown(*(getattr(self, name).index_copy(0, index, getattr(other, name)) for name in _NAMES))


_NAMES = ("latents", "pictures", "representations", "scores")
