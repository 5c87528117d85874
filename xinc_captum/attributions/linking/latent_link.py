"""Class LatentLink: a link with its audit."""

from __future__ import annotations

from torch import Tensor

from ...generators.protocol import Generator
from .audit import LinkAudit, audit
from .link import Link
from .loop import Encoder
from .pairs import Pairs


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

    Example:
        >>> import torch
        >>> r = torch.rand(200, 6)
        >>> w = r @ torch.rand(6, 4)
        >>> link = LatentLink(ridge=0.0).fit(r[:150], w[:150])
        >>> round(float(link.score(r[150:], w[150:])), 6)
        1.0

    Source: Wehrheim, Osuna-Vargas, Kaschube, "Linking in Style" (arXiv 2409.16865).
    """

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
        """Measure the link on held-out pairs, beside controls; ``str(audit.trust)`` of the result is the verdict.

        Args:
            held_out: pairs of another seed, or of :meth:`Pairs.split`.
            fit: the pairs of the fit, for the shuffled control and for leave-one-out.
            encoder: encodes the linked images; requires ``generator``.
            generator: generates them.
            real: (n, C, H, W) real images in [0, 1] of the size that the encoder takes.
            ceiling: also train a two-layer network on ``fit`` and optimize latents, which takes longer.
            search_rows: number of held-out pairs for that optimization.
            seed: random seed of the bootstrap, the control and the network.

        Raises:
            ValueError: pairs of another size, an encoder without a generator or of another layer, ``fit`` that differs
                from the fitted pairs, real images of another size or outside [0, 1].
        """
        return audit(self, held_out, fit, encoder, generator, real, ceiling, search_rows, seed)
