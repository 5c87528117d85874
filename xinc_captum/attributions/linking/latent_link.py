"""Class LatentLink: a link and its audit on held-out pairs, with controls (LinkAudit, MLPLink, latent_search)."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...batch import python_index, random_generator
from ...generators.protocol import Generator, images_in_unit_range, modules_of
from ...hooks import protect
from ...images import check_images
from ...metrics import links
from ...metrics.links import SemanticOrder, r2
from ...metrics.statistics import Interval, complement, predict_classes, ratio_interval, shuffle_within
from ...metrics.trust import LinkTrust, judge_link
from ...store import bundle, write_tensors
from .link import Link, check_pairs
from .loop import Encoded, Encoder, check_image_size
from .moments import RankReport, UndeterminedError, wide
from .pairs import Pairs


class SearchedLatents(NamedTuple):
    """Result of :func:`latent_search`: the best latents of each sample, (n, latent_dim), never worse than the start.

    ``errors``, (n,), are mean squared distances to the expected representations, in standard deviations; ``before``,
    (n,), are those of the initial latents.
    """

    latents: Tensor
    errors: Tensor
    before: Tensor


def latent_search(
    encoder: Encoder,
    generator: Generator,
    r: Tensor,
    start: Tensor,
    *,
    scale: Tensor,
    steps: int = 100,
    lr: float = 0.05,
) -> SearchedLatents:
    r"""Optimize latents by Adam so that the representations of their images come close to expected ones.

    .. math:: \min_w \frac1U \sum_u \big(h_u(G(w)) - r_u\big)^2 / s_u^2

    Symbols: h the encoder, G the differentiable generator, r the expected representations (n, units), s = ``scale``
    their standard deviations (units,), U the number of units with s above 0; the others do not count. ``start`` are the
    initial latents (n, latent_dim), for instance those of a link; ``lr`` is in standard deviations of ``start``.

    Raises:
        ValueError: a generator that is not differentiable, or shapes that do not match.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> generator = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> encoder = Encoder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), "1")
        >>> result = latent_search(encoder, generator, torch.full((1, 4), 0.6), torch.rand(1, 4), scale=torch.ones(4))
        >>> bool(result.errors < 0.1 * result.before)
        True

    Source: Abdal, Qin, Wonka 2019, "Image2StyleGAN", with the distance of a classifier's representations.
    """
    if not getattr(generator, "differentiable", True):
        raise ValueError("the generator is not differentiable; latent_search needs its gradient.")
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1.")
    r, start = (side.detach() for side in check_pairs(r, start))
    weight = torch.where(scale > 0, scale.clamp_min(torch.finfo(scale.dtype).tiny) ** -2, 0.0)
    weight = (weight / max(int((scale > 0).sum()), 1)).to(r)
    best, errors = start.clone(), torch.full((len(r),), torch.inf, dtype=r.dtype, device=r.device)
    before = errors
    with protect(encoder.forward_func, *modules_of(generator)), torch.enable_grad():
        w = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([w], lr * max(float(start.std()), 1e-6))
        for step in range(steps + 1):
            current = encoder(images_in_unit_range(generator, w))
            error = ((current - r.to(current)).square() * weight.to(current)).sum(1)
            value = error.detach().to(errors)
            better = value < errors
            best, errors = torch.where(better[:, None], w.detach(), best), torch.where(better, value, errors)
            if step == 0:
                before = value
            if step < steps:
                (w.grad,) = torch.autograd.grad(error.sum(), w)
                optimizer.step()
    return SearchedLatents(best, errors, before)


@dataclass(frozen=True, eq=False)
class LinkAudit:
    """Result of :meth:`LatentLink.audit` on held-out pairs; None where the required arguments were not given.

    Attributes:
        pairs: number of held-out pairs.
        classes: number of their classes. With one class, R² within classes equals R², and class agreement is no
            evidence.
        r2: R² over all latents, with a bootstrap interval.
        r2_within: R² within classes, against class means: the strictest measure.
        class_mean_r2: R² of a link that uses only the class.
        shuffled_within: R² within classes of a link fitted to pairs shuffled within classes. It measures what the order
            of the classes alone explains; 0 or below means no evidence of order within them.
        left_out_r2: R² on the fitted pairs, each predicted without itself (PRESS).
        duplicates: share of repeated latents among the fitted pairs.
        leaked: share of held-out latents that are among the fitted ones.
        generated: share of generated images whose linked image has the same predicted class.
        real: the same share for real images.
        class_mean_agreement: the same share for class means, a control for ``generated``.
        cycle_r2: R² of r' against r, r → w → image → r', over all units together.
        cycle_cosine: mean cosine of r and r'.
        unit_cycle: (units,) correlation of each unit with itself after the cycle.
        unit_tolerance: (units,) share of each unit's variance that no other unit explains.
        order: similarity of the geometry of the two spaces.
        mlp_r2_within: R² within classes of a two-layer network, a ceiling for the closed form.
        search_cycle_r2: cycle R² of latents optimized through generator and classifier, on ``searched`` pairs.
        search_from: cycle R² of the link on the same pairs, before the optimization.
        searched: number of pairs in that optimization.
        report: how well the pairs determine the map.
        manifest: where the link's pairs came from.
        held_out_duplicates: share of the held-out pairs whose latents repeat those of an earlier one.
    """

    pairs: int
    classes: int
    r2: Interval
    r2_within: Interval | None
    class_mean_r2: float | None
    shuffled_within: float | None
    left_out_r2: float | None
    duplicates: float
    leaked: float
    generated: Interval | None
    real: Interval | None
    class_mean_agreement: float | None
    cycle_r2: float | None
    cycle_cosine: float | None
    unit_cycle: Tensor | None = field(repr=False)
    unit_tolerance: Tensor = field(repr=False)
    order: SemanticOrder | None
    mlp_r2_within: float | None
    search_cycle_r2: float | None
    search_from: float | None
    searched: int
    report: RankReport
    manifest: dict[str, Any] = field(repr=False)
    held_out_duplicates: float = 0.0

    @cached_property
    def trust(self) -> LinkTrust:
        """Verdict (holds, weak or fails) and reason."""
        return judge_link(
            r2=self.r2,
            r2_within=self.r2_within,
            shuffled=self.shuffled_within,
            leaked=self.leaked,
            generated=self.generated,
            real=self.real,
            cycle=self.cycle_r2,
            classes=self.classes,
            pairs=self.report.pairs,
            units=self.report.alive,
            duplicates=self.duplicates,
            held_out_duplicates=self.held_out_duplicates,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return numbers and text for JSON, the verdict first; None for nan."""
        numbers = {one.name: _jsonable(getattr(self, one.name)) for one in fields(self)}
        return {"trust": asdict(self.trust), **numbers}

    def save(self, path: str | Path) -> Path:
        """Write numbers and units' tensors, atomically, into a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the folder cannot be written, or has other content.
        """
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        note = {name: value for name, value in self.to_dict().items() if name not in ("unit_tolerance", "unit_cycle")}
        with bundle(path, {"audit": note}) as folder:
            write_tensors(folder / "units.safetensors", tensors, kind="link-audit")
        return Path(path)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Interval):
        return {name: _jsonable(number) for name, number in value._asdict().items()}
    if isinstance(value, Tensor):
        return [_jsonable(number) for number in value.tolist()]
    if isinstance(value, float):  # JSON has no nan
        return value if math.isfinite(value) else None
    return value.to_dict() if isinstance(value, SemanticOrder | RankReport) else value


class MLPLink(nn.Module):
    r"""A two-layer network from representations to latents, the ceiling for a link.

    .. math:: \hat w = \bar w + s_w \odot \big(W_2\, \mathrm{GELU}(W_1 (r - \bar r) / s_r + b_1) + b_2\big)

    Symbols: W_1, W_2, b_1, b_2 the weights; r̄, w̄ the means and s_r, s_w the standard deviations of the pairs.
    ``hidden`` is the width of the hidden layer. ``seed`` is that of the initial weights and the order of the samples;
    the global random state is not used.

    Example:
        >>> r = torch.rand(300, 4)
        >>> link = MLPLink(hidden=32).fit(r, (3 * r).sin(), epochs=100)
        >>> bool((link(r) - (3 * r).sin()).square().mean() < 0.05)
        True
    """

    def __init__(self, hidden: int = 256, *, seed: int = 0) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden is {hidden}; expected at least 1.")
        self.hidden, self.seed = hidden, seed
        self.first: nn.Linear | None = None
        self.second: nn.Linear | None = None

    def fit(self, r: Tensor, w: Tensor, *, epochs: int = 30, batch_size: int = 128, lr: float = 3e-3) -> MLPLink:
        """Train new weights on pairs, (n, units) and (n, latent_dim), with Adam and cosine annealing to 0.

        Raises:
            ValueError: as :meth:`LatentLink.fit`.
        """
        r, w = (wide(side) for side in check_pairs(r, w))
        generator = random_generator(self.seed)
        self.r_mean, self.r_sd = r.mean(0), _spread(r)  # float64: a mean may be much larger than its deviation
        self.w_mean, self.w_sd = w.mean(0), _spread(w)
        target = ((w - self.w_mean) / self.w_sd).float()
        self.first = _new_layer(r.shape[1], self.hidden, generator).to(r.device)
        self.second = _new_layer(self.hidden, w.shape[1], generator).to(r.device)
        weights = [*self.first.parameters(), *self.second.parameters()]
        steps = epochs * math.ceil(len(r) / batch_size)
        with torch.enable_grad():
            optimizer = torch.optim.Adam(weights, lr)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
            for _ in range(epochs):
                for rows in torch.randperm(len(r), generator=generator).to(r.device).split(python_index(batch_size)):
                    loss = (self._predict_standardized(r[rows]) - target[rows]).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
        self.requires_grad_(False)
        return self

    def forward(self, r: Tensor) -> Tensor:
        """Return the latents of representations, (n, units) → (n, latent_dim), float32."""
        standardized = self._predict_standardized(r)
        return (self.w_mean + self.w_sd * standardized).float()

    def _predict_standardized(self, r: Tensor) -> Tensor:
        if self.first is None or self.second is None:
            raise ValueError("the network is not fitted; call fit(r, w).")
        hidden = nn.functional.gelu(self.first(((r.to(self.r_mean) - self.r_mean) / self.r_sd).float()))
        latents: Tensor = self.second(hidden)
        return latents


def _spread(rows: Tensor) -> Tensor:
    """Return the standard deviation of each column; 1 for a constant column, whatever rounding makes of it."""
    return torch.where((rows == rows[0]).all(0), 1.0, rows.std(0))


def _new_layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs))
        layer.bias.zero_()
    return layer


def _fit_figures(held_out: Pairs, predicted: Tensor, seed: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"r2": complement(ratio_interval(*links.squares(held_out.latents, predicted), seed=seed))}
    error, around = links.squares(held_out.latents, predicted, held_out.classes)
    if float(around.sum()) > 0:
        figures["r2_within"] = complement(ratio_interval(error, around, seed=seed))
    figures["class_mean_r2"] = float(r2(held_out.latents, links.class_means(held_out.latents, held_out.classes)))
    figures["order"] = links.semantic_order(held_out.representations, held_out.latents, held_out.classes, seed=seed)
    return figures


def _control_figures(link: Link, held_out: Pairs, fit: Pairs | None, ceiling: bool, seed: int) -> dict[str, Any]:
    """Return figures that need the fitted pairs: the shuffled control, leave-one-out, and a network."""
    if fit is None:
        return {}
    r, w, classes = fit.representations, fit.latents, fit.classes
    generator = random_generator(seed)
    control = type(link)(**link.settings).partial_fit(r, shuffle_within(w, classes, generator), classes)
    figures: dict[str, Any] = {
        "shuffled_within": _r2_within(held_out, control(held_out.representations, held_out.classes))
    }
    with contextlib.suppress(UndeterminedError):  # a result; pairs other than the link's are the caller's mistake
        figures["left_out_r2"] = float(r2(w, link.leave_one_out(r, w, classes).to(w)))
    if ceiling:
        figures["mlp_r2_within"] = _r2_within(held_out, MLPLink(seed=seed).fit(r, w)(held_out.representations))
    return figures


def _cycle_figures(
    link: Link, held_out: Pairs, predicted: Tensor, encoder: Encoder, generator: Generator, seed: int
) -> dict[str, Any]:
    encoded = _encode_latents(encoder, generator, predicted, held_out.latents)
    r, cycled = held_out.representations, encoded.representations.to(held_out.representations)
    before, after = (predict_classes(side, held_out.logits).cpu() for side in (held_out.logits, encoded.logits))
    figures: dict[str, Any] = {
        "generated": _share(before == after, seed),
        "cycle_r2": float(r2(r, cycled)),
        "cycle_cosine": float(torch.nn.functional.cosine_similarity(r, cycled).mean()),
        "unit_cycle": links.unit_agreement(r, cycled),
    }
    if link.class_means is not None and held_out.logits.shape[1] > 1:  # a single column has no class numbers
        ids = sorted(link.class_means.w_means)
        centres = torch.stack([link.class_means.w_means[c] for c in ids])
        predictions = _encode_latents(encoder, generator, centres, held_out.latents).logits.argmax(1).cpu()
        figures["class_mean_agreement"] = float((predictions == torch.tensor(ids)).double().mean())
    return figures


def _real_agreement(
    link: Link, like: Tensor, encoder: Encoder, generator: Generator, real: Tensor, seed: int
) -> Interval:
    """Return the share of real images whose linked image has their class; a class without a map counts as another."""
    try:
        encoded = encoder.encode(real)
    except RuntimeError as error:
        check_image_size(real, images_in_unit_range(generator, like[:2]), error)
        raise
    predictions = predict_classes(encoded.logits).cpu()
    known = torch.ones(len(real), dtype=torch.bool)
    if link.variant == "per_class" and link.class_means is not None:
        known = torch.isin(predictions, torch.tensor(sorted(link.class_means.counts)))
    same = torch.zeros(len(real), dtype=torch.bool)
    if known.any():
        latents = link(encoded.representations[known.to(encoded.representations.device)], predictions[known])
        logits = _encode_latents(encoder, generator, latents, like).logits
        same[known] = predict_classes(logits, encoded.logits).cpu() == predictions[known]
    return _share(same, seed)


def _search_figures(
    link: Link, held_out: Pairs, predicted: Tensor, encoder: Encoder, generator: Generator, rows: int
) -> dict[str, Any]:
    r, start = held_out.representations[:rows], predicted[:rows].to(held_out.latents)
    best = latent_search(encoder, generator, r, start, scale=link.r_sd)
    after, before = (_encode_latents(encoder, generator, w, start).representations.to(r) for w in (best.latents, start))
    return {"search_cycle_r2": float(r2(r, after)), "search_from": float(r2(r, before)), "searched": len(r)}


def _encode_latents(encoder: Encoder, generator: Generator, latents: Tensor, like: Tensor) -> Encoded:
    """Return representations and scores of the latents' images."""
    batches = [encoder.encode(images_in_unit_range(generator, some.to(like))) for some in latents.split(64)]
    return Encoded(*(torch.cat(same) for same in zip(*batches, strict=True)))


def _r2_within(held_out: Pairs, predicted: Tensor) -> float | None:
    """Return None if nothing varies within classes."""
    value = float(links.r2_within(held_out.latents, predicted.to(held_out.latents), held_out.classes))
    return value if math.isfinite(value) else None


def _share(hits: Tensor, seed: int) -> Interval:
    return ratio_interval(hits.double(), torch.ones(len(hits), dtype=torch.float64), seed=seed)


class LatentLink(Link):
    r"""A closed-form map from a classifier's representation to the latent of a generator's image.

    .. math:: \hat w = B r + b, \qquad (B, b) = \arg\min
        \sum_i \lVert w_i - B r_i - b \rVert^2 + \lambda \lVert B \rVert^2

    Symbols: r a representation (for example the pooled input of the classifier's last layer), w the latent of the image
    that it represents. The pairs come from a generator's own images (:func:`make_pairs`). ``"linear"`` is the paper's
    link; ``"per_class"`` has one map per class; ``"fourier_features"`` is non-linear and still in closed form.

    Args:
        variant: "linear", "per_class" or "fourier_features".
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
        """Measure the link and its controls on held-out pairs; ``.trust`` of the result is the verdict.

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
        if (encoder is None) != (generator is None):
            raise ValueError("encoder and generator go together: give both, or neither.")
        if real is not None and encoder is None:
            raise ValueError("real images need an encoder and a generator to be linked with; give both.")
        real = None if real is None else check_images(real)
        if encoder is not None and generator is not None:
            with torch.no_grad(), protect(encoder.forward_func, *modules_of(generator)):
                units = encoder(images_in_unit_range(generator, held_out.latents[:2])).shape[1]
                encoder.check_pairs(held_out.manifest, held_out.representations.shape[1], units)
        predicted = self(held_out.representations, held_out.classes)
        figures: dict[str, Any] = dict.fromkeys((one.name for one in fields(LinkAudit)), None) | {"searched": 0}
        figures |= _fit_figures(held_out, predicted, seed) | _control_figures(self, held_out, fit, ceiling, seed)
        if encoder is not None and generator is not None:
            with torch.no_grad(), protect(encoder.forward_func, *modules_of(generator)):
                figures |= _cycle_figures(self, held_out, predicted, encoder, generator, seed)
                if real is not None:
                    figures["real"] = _real_agreement(self, held_out.latents, encoder, generator, real, seed)
                if ceiling:
                    figures |= _search_figures(self, held_out, predicted, encoder, generator, search_rows)
        hashes = self.latent_hashes
        return LinkAudit(
            **figures
            | {
                "pairs": len(held_out),
                "classes": len(held_out.classes.unique()),
                "duplicates": (len(hashes) - len(hashes.unique())) / max(len(hashes), 1),
                "leaked": float(links.leaks(held_out.latents, hashes).double().mean()),
                "unit_tolerance": links.tolerance(self.covariance),
                "report": self.report,
                "manifest": self.manifest,
                "held_out_duplicates": links.duplicates(held_out.latents),
            }
        )
