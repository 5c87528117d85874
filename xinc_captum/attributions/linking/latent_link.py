"""Class LatentLink: fit, audit, save and load a link."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import store
from ...generators.protocol import Generator
from .audit import LinkAudit, audit
from .encoder import Encoder
from .link import Link
from .moments import ClassMeans, Reservoir
from .pairs import Pairs
from .regressions import KINDS
from .ridge import RankReport

FILE_KIND, WRITER = "link", "LatentLink.save()"


class LatentLink(Link):
    r"""A closed-form map from a classifier's representation to the latent of a generator's image.

    .. math:: \hat w = B r + b, \qquad (B, b) = \arg\min
        \sum_i \lVert w_i - B r_i - b \rVert^2 + \lambda \lVert B \rVert^2

    Symbols: r a representation (for example the pooled input of the classifier's last layer), w the latent of the image
    that it represents. The pairs come from a generator's own images (:func:`make_pairs`). ``"linear"`` is the paper's
    link; ``"per_class"`` has one map per class; ``"fourier_features"`` is non-linear and still in closed form.

    Args:
        variant: one of the three.
        ridge: λ, added to sums of squares as in scikit-learn; ``"gcv"`` chooses it by generalised cross-validation.
        features: number of Fourier features, for ``"fourier_features"``.
        reservoir: number of representations stored for quantiles.
        seed: random seed of the Fourier features and the reservoir.

    Attributes:
        weight, bias: of the map, float64: (latent_dim, units) and (latent_dim,); with a leading axis of classes for
            ``"per_class"``; (latent_dim, features) for ``"fourier_features"``.
        manifest: where the pairs came from; stored in the file.
        ridges: the λ used, one per map.

    Raises:
        ValueError: an unknown variant or ridge, or no features.

    Example:
        >>> import torch
        >>> r = torch.rand(200, 6)
        >>> w = r @ torch.rand(6, 4)
        >>> link = LatentLink(ridge=0.0).fit(r[:150], w[:150])
        >>> round(float(link.score(r[150:], w[150:])), 6)
        1.0

    Source: Wehrheim, Osuna-Vargas, Kaschube, "Linking in Style" (arXiv 2409.16865).
    """

    def fit(
        self, r: Tensor, w: Tensor, classes: Tensor | None = None, *, manifest: Mapping[str, Any] | None = None
    ) -> LatentLink:
        """Discard all earlier pairs, add these and solve; warn if there are fewer pairs than live units.

        Args:
            r: (n, units) representations, any float dtype.
            w: (n, latent_dim) latents.
            classes: (n,) whole numbers; required for ``"per_class"`` and for directions within classes.
            manifest: what a file records about the pairs, such as ``Pairs.manifest``.

        Raises:
            ValueError: shapes that do not match, values that are not finite, fewer than two pairs, representations or
                latents that do not vary, a class too small for a map of its own.
        """
        self.map, self.class_means, self._report = None, None, None
        self.reservoir = Reservoir(self.reservoir.size, self.seed)
        self.latent_hashes = self.latent_hashes[:0]
        self.manifest = dict(manifest or {})
        self.partial_fit(r, w, classes)
        self.solve().warn_of_few_pairs()
        return self

    def audit(
        self,
        held_out: Pairs,
        fit: Pairs | None = None,
        *,
        encoder: Encoder | None = None,
        generator: Generator | None = None,
        real: Tensor | None = None,
        ceiling: bool = False,
        search_rows: int = 32,
        seed: int = 0,
    ) -> LinkAudit:
        """Measure the link on held-out pairs, beside controls.

        Args:
            held_out: pairs of another seed, or of :meth:`Pairs.split`.
            fit: the pairs of the fit, for the shuffled control and for leave-one-out.
            encoder: encodes the linked images; requires ``generator``.
            generator: generates them.
            real: (n, C, H, W) real images in [0, 1] of the size that the encoder takes.
            ceiling: also train a two-layer network on ``fit`` and optimize latents, which takes longer.
            search_rows: number of held-out pairs for that optimization.
            seed: random seed of the bootstrap, the control and the network.

        Returns:
            a :class:`LinkAudit`; ``str(audit.trust)`` is the verdict.

        Raises:
            ValueError: pairs of another size, an encoder without a generator or of another layer, ``fit`` that differs
                from the fitted pairs, real images of another size or outside [0, 1].
        """
        return audit(self, held_out, fit, encoder, generator, real, ceiling, search_rows, seed)

    def save(self, path: str | Path) -> Path:
        """Write map, moments and manifest into one safetensors file (:func:`~xinc_captum.store.write_tensors`).

        Raises:
            StoreError: the file cannot be written.
            ValueError: the link has no pairs.
        """
        report = self.solve()
        map_ = self._require_map()
        tensors = {f"map.{k}": v for k, v in map_.tensors().items()}
        tensors |= {f"solved.{k}": v for k, v in map_.named_buffers() if k in _SOLUTION}
        tensors |= {"reservoir.rows": self.reservoir.rows, "reservoir.keys": self.reservoir.keys}
        tensors["seen"] = self.latent_hashes
        if self.class_means is not None:
            tensors |= {f"means.{k}": v for k, v in self.class_means.tensors().items()}
        metadata = {
            "settings": self.settings,
            "ridges": self.ridges,
            "report": report.to_dict(),
            "manifest": self.manifest,
        }
        return store.write_tensors(path, tensors, kind=FILE_KIND, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> LatentLink:
        """Read a link that :meth:`save` wrote; it can be merged and take further pairs.

        Raises:
            FileNotFoundError: no such file.
            StoreError: a pickle, a damaged file, a file of another kind or of a newer version.
        """
        tensors, metadata = store.read_tensors(path, kind=FILE_KIND, writer=WRITER)
        with store.consistent(path, WRITER):
            link = cls(**metadata["settings"])
            map_ = KINDS[link.variant].from_tensors(_with_prefix("map.", tensors), link.ridge)
            for name, value in _with_prefix("solved.", tensors).items():
                setattr(map_, name, value)
            link.map = map_
            link.reservoir.rows, link.reservoir.keys = tensors["reservoir.rows"], tensors["reservoir.keys"]
            link.latent_hashes = tensors["seen"]
            means = _with_prefix("means.", tensors)
            link.class_means = ClassMeans.from_tensors(means) if means else None
            link.ridges, link.manifest = dict(metadata["ridges"]), dict(metadata["manifest"])
            link._report = RankReport(**metadata["report"])
        return link


_SOLUTION = ("weight", "bias", "class_ids")


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
