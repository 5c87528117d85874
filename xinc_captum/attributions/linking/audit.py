"""LinkAudit and its controls."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ...batch import chunks
from ...generators.protocol import Generator, images_in_unit_range, modules_of
from ...hooks import protect
from ...images import check_images
from ...metrics.links import (
    SemanticOrder,
    class_means,
    duplicates,
    leaks,
    r2,
    r2_within,
    semantic_order,
    squares,
    tolerance,
    unit_agreement,
)
from ...metrics.probability import predict_classes
from ...metrics.statistics import (
    Interval,
    complement,
    ratio_interval,
    shuffle_within,
)
from ...metrics.trust import LinkTrust, judge_link
from ...store import bundle, write_tensors
from .checks import checked_encoder, checked_pairs, checked_size
from .encoder import Encoded, Encoder
from .moments import wide
from .pairs import Pairs
from .ridge import RankReport, UndeterminedError

if TYPE_CHECKING:
    from .latent_link import LatentLink


class Searched(NamedTuple):
    """What :func:`latent_search` found.

    Attributes:
        latents: (n, latent_dim), the best met by each row.
        errors: (n,) mean squared distance to the expected representation, in standard deviations.
        before: (n,) the same where the search began.
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
) -> Searched:
    r"""Move latents until the classifier represents their pictures as expected.

    .. math:: \min_w \frac1U \sum_u \big(h_u(G(w)) - r_u\big)^2 / s_u^2

    Args:
        encoder: h.
        generator: G, differentiable.
        r: expected, (n, units).
        start: latents to begin with, (n, latent_dim), a link's for instance.
        scale: s, (units,), standard deviations; units with 0 do not count.
        steps: of Adam.
        lr: its rate, in standard deviations of ``start`` (over rows and latents).

    Returns:
        a :class:`Searched`; never worse than ``start``.

    Raises:
        ValueError: a generator that says it is not differentiable, or shapes that do not fit.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> from xinc_captum.attributions.linking import Encoder
        >>> paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> encoder = Encoder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), "1")
        >>> found = latent_search(encoder, paint, torch.full((1, 4), 0.6), torch.rand(1, 4), scale=torch.ones(4))
        >>> bool(found.errors < 0.1 * found.before)
        True

    Source: Abdal, Qin, Wonka 2019, "Image2StyleGAN", with a classifier's distance.
    """
    if not getattr(generator, "differentiable", True):
        raise ValueError("the generator says that it is not differentiable, so latents cannot be searched through it.")
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1.")
    r, start = (side.detach() for side in checked_pairs(r, start))
    weight = torch.where(scale > 0, scale.clamp_min(torch.finfo(scale.dtype).tiny) ** -2, 0.0)
    weight = (weight / max(int((scale > 0).sum()), 1)).to(r)
    best, errors = start.clone(), torch.full((len(r),), torch.inf, dtype=r.dtype, device=r.device)
    before = errors
    with protect(encoder.forward_func, *modules_of(generator)), torch.enable_grad():
        w = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([w], lr * max(float(start.std()), 1e-6))
        for step in range(steps + 1):
            seen = encoder.read(images_in_unit_range(generator, w)).representations
            error = ((seen - r.to(seen)).square() * weight.to(seen)).sum(1)
            now = error.detach().to(errors)
            better = now < errors
            best, errors = torch.where(better[:, None], w.detach(), best), torch.where(better, now, errors)
            if step == 0:
                before = now
            if step < steps:
                (w.grad,) = torch.autograd.grad(error.sum(), w)
                optimizer.step()
    return Searched(best, errors, before)


@dataclass(frozen=True, eq=False)
class LinkAudit:
    """What :meth:`LatentLink.audit` found on held-out pairs; None where what it needs was not given.

    Attributes:
        pairs: held-out pairs.
        classes: how many classes they are of; of one class, R² within classes is R², and keeping it says nothing.
        r2: of everything, with a bootstrap interval.
        r2_within: against class means: the honest figure.
        class_mean_r2: what a link that knows only the class reaches.
        shuffled_within: R² within classes of a link fitted to pairs shuffled within classes: what the order of the
            classes alone explains, 0 or below where it says nothing of the order within them.
        left_out_r2: R² on the fitted pairs, each left out (PRESS).
        duplicates: share of repeated latents among all pairs seen by the fit.
        leaked: share of held-out latents that the fit had seen.
        generated: share of generated pictures to whose linked picture the model gives the same class.
        real: the same of real pictures.
        class_mean_agreement: the same of class means: agreement alone proves nothing.
        cycle_r2: R² of r' against r, r → w → picture → r', over all units together.
        cycle_cosine: mean cosine of r and r'.
        unit_cycle: (units,) correlation of each unit with itself after the cycle.
        unit_tolerance: (units,) share of each unit's variance that no other unit explains.
        order: congruence of the two spaces.
        mlp_r2_within: R² within classes of a two-layer network: how much the closed form gives up.
        search_cycle_r2: cycle R² of latents searched through generator and classifier, on ``searched`` pairs.
        search_from: cycle R² of the link on the same pairs, where the search began.
        searched: pairs of the search.
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
        """Holds, weak or fails, and because of what."""
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
        """Plain numbers and text, the verdict first; units by number; None for what cannot be told."""
        found: dict[str, Any] = {"trust": {"verdict": self.trust.verdict, "because": self.trust.because}}
        return found | {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    def save(self, path: str | Path) -> Path:
        """Write the numbers (manifest.json) and the figures of units into a folder that appears whole or not at all.

        Args:
            path: a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the place cannot be written to, or holds something else.
        """
        units = {"unit_tolerance": self.unit_tolerance, "unit_cycle": self.unit_cycle}
        note = {name: value for name, value in self.to_dict().items() if name not in units}
        with bundle(path, {"audit": note}) as folder:
            held = {name: value for name, value in units.items() if value is not None}
            write_tensors(folder / "units.safetensors", held, kind="link-audit")
        return Path(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return {name: _plain(number) for name, number in value._asdict().items()}
    if isinstance(value, Tensor):
        return [_plain(number) for number in value.tolist()]
    if isinstance(value, float):  # JSON has no nan: what cannot be told is None
        return value if math.isfinite(value) else None
    return value.to_dict() if isinstance(value, SemanticOrder | RankReport) else value


class MLPLink(nn.Module):
    r"""The ceiling beside a link.

    .. math:: \hat w = \bar w + s_w \odot \big(W_2\, \mathrm{GELU}(W_1 (r - \bar r) / s_r + b_1) + b_2\big)

    Args:
        hidden: width of the one hidden layer.
        seed: of the first weights and the order of the rows; the global random state is not touched.

    Example:
        >>> r = torch.rand(300, 4)
        >>> link = MLPLink(hidden=32).fit(r, (3 * r).sin(), epochs=100)
        >>> bool((link(r) - (3 * r).sin()).square().mean() < 0.05)
        True
    """

    scales: Tensor

    def __init__(self, hidden: int = 256, *, seed: int = 0) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden is {hidden}; expected at least 1.")
        self.hidden, self.seed = hidden, seed
        self.first: nn.Linear | None = None
        self.second: nn.Linear | None = None

    def fit(self, r: Tensor, w: Tensor, *, epochs: int = 30, batch_size: int = 128, lr: float = 3e-3) -> MLPLink:
        """Train from the start on pairs, (n, units) and (n, latent_dim), with Adam and a learning rate that falls to 0.

        Raises:
            ValueError: as :meth:`LatentLink.fit`.
        """
        r, w = (wide(side) for side in checked_pairs(r, w))
        generator = torch.Generator().manual_seed(self.seed)
        self.r_mean, self.r_sd = r.mean(0), _spread(r)  # in float64: a mean may be large beside its deviation
        self.w_mean, self.w_sd = w.mean(0), _spread(w)
        expected = ((w - self.w_mean) / self.w_sd).float()
        self.first = _layer(r.shape[1], self.hidden, generator).to(r.device)
        self.second = _layer(self.hidden, w.shape[1], generator).to(r.device)
        weights = [*self.first.parameters(), *self.second.parameters()]
        steps = epochs * math.ceil(len(r) / batch_size)
        with torch.enable_grad():
            optimizer = torch.optim.Adam(weights, lr)
            fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
            for _ in range(epochs):
                for rows in torch.randperm(len(r), generator=generator).to(r.device).split(batch_size):
                    loss = (self._standardised(r[rows]) - expected[rows]).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    fall.step()
        self.requires_grad_(False)
        return self

    def forward(self, r: Tensor) -> Tensor:
        """Latents of representations, (n, units) → (n, latent_dim), float32."""
        standardised = self._standardised(r)
        return (self.w_mean + self.w_sd * standardised).float()

    def _standardised(self, r: Tensor) -> Tensor:
        if self.first is None or self.second is None:
            raise ValueError("the network has seen no pairs; call fit(r, w).")
        hidden = nn.functional.gelu(self.first(((r.to(self.r_mean) - self.r_mean) / self.r_sd).float()))
        answer: Tensor = self.second(hidden)
        return answer


def _spread(rows: Tensor) -> Tensor:
    """The standard deviation of each column; 1 where all values are equal, whatever rounding makes of it."""
    return torch.where((rows == rows[0]).all(0), 1.0, rows.std(0))


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs))
        layer.bias.zero_()
    return layer


def audited(
    link: LatentLink,
    held_out: Pairs,
    fit: Pairs | None,
    encoder: Encoder | None,
    generator: Generator | None,
    real: Tensor | None,
    ceiling: bool,
    search_rows: int,
    seed: int,
) -> LinkAudit:
    """See :meth:`LatentLink.audit`."""
    if (encoder is None) != (generator is None):
        raise ValueError("encoder and generator go together: give both, or neither.")
    if real is not None and encoder is None:
        raise ValueError("real pictures want an encoder and a generator to be linked with; give both.")
    real = None if real is None else check_images(real)
    if encoder is not None and generator is not None:
        with torch.no_grad(), protect(encoder.forward_func, *modules_of(generator)):
            drawn = images_in_unit_range(generator, held_out.latents[:2])
            checked_encoder(encoder, held_out, encoder(drawn))
    predicted = link(held_out.representations, held_out.classes)
    found = _explained(held_out, predicted, seed) | _compared(link, held_out, fit, ceiling, seed)
    if encoder is not None and generator is not None:
        with torch.no_grad(), protect(encoder.forward_func, *modules_of(generator)):
            found |= _looked_at(link, held_out, predicted, encoder, generator, seed)
            if real is not None:
                found["real"] = _real(link, held_out.latents, encoder, generator, real, seed)
            if ceiling:
                found |= _searched(link, held_out, predicted, encoder, generator, search_rows)
    seen = link.seen
    return LinkAudit(
        **_NOTHING
        | found
        | {
            "pairs": len(held_out),
            "classes": len(held_out.classes.unique()),
            "duplicates": (len(seen) - len(seen.unique())) / max(len(seen), 1),
            "leaked": float(leaks(held_out.latents, seen).double().mean()),
            "unit_tolerance": tolerance(link.covariance),
            "report": link.report,
            "manifest": link.manifest,
            "held_out_duplicates": duplicates(held_out.latents),
        }
    )


_NOTHING: dict[str, Any] = dict.fromkeys(
    "r2_within class_mean_r2 shuffled_within left_out_r2 generated real class_mean_agreement cycle_r2 cycle_cosine "
    "unit_cycle order mlp_r2_within search_cycle_r2 search_from".split()
) | {"searched": 0}


def _explained(held_out: Pairs, predicted: Tensor, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {"r2": complement(ratio_interval(*squares(held_out.latents, predicted), seed=seed))}
    error, around = squares(held_out.latents, predicted, held_out.classes)
    if float(around.sum()) > 0:
        found["r2_within"] = complement(ratio_interval(error, around, seed=seed))
    found["class_mean_r2"] = float(r2(held_out.latents, class_means(held_out.latents, held_out.classes)))
    found["order"] = semantic_order(held_out.representations, held_out.latents, held_out.classes, seed=seed)
    return found


def _compared(link: LatentLink, held_out: Pairs, fit: Pairs | None, ceiling: bool, seed: int) -> dict[str, Any]:
    """What the fitted pairs are needed for: the shuffled control, leaving one out, and a network."""
    if fit is None:
        return {}
    r, w, classes = fit.representations, fit.latents, fit.classes
    generator = torch.Generator().manual_seed(seed)
    control = type(link)(**link.settings).partial_fit(r, shuffle_within(w, classes, generator), classes)
    found: dict[str, Any] = {"shuffled_within": _within(held_out, control(held_out.representations, held_out.classes))}
    with contextlib.suppress(UndeterminedError):  # a finding; other pairs than the link's are the caller's mistake
        found["left_out_r2"] = float(r2(w, link.leave_one_out(r, w, classes).to(w)))
    if ceiling:
        found["mlp_r2_within"] = _within(held_out, MLPLink(seed=seed).fit(r, w)(held_out.representations))
    return found


def _looked_at(
    link: LatentLink, held_out: Pairs, predicted: Tensor, encoder: Encoder, generator: Generator, seed: int
) -> dict[str, Any]:
    again = _shown(encoder, generator, predicted, held_out.latents)
    r, back = held_out.representations, again.representations.to(held_out.representations)
    before, after = (predict_classes(side, held_out.logits).cpu() for side in (held_out.logits, again.logits))
    same = before == after
    found: dict[str, Any] = {
        "generated": _share(same, seed),
        "cycle_r2": float(r2(r, back)),
        "cycle_cosine": float(torch.nn.functional.cosine_similarity(r, back).mean()),
        "unit_cycle": unit_agreement(r, back),
    }
    if link.class_means is not None and held_out.logits.shape[1] > 1:  # one column has no class of a number
        ids = sorted(link.class_means.w_means)
        centres = torch.stack([link.class_means.w_means[c] for c in ids])
        answers = _shown(encoder, generator, centres, held_out.latents).logits.argmax(1).cpu()
        found["class_mean_agreement"] = float((answers == torch.tensor(ids)).double().mean())
    return found


def _real(link: LatentLink, like: Tensor, encoder: Encoder, generator: Generator, real: Tensor, seed: int) -> Interval:
    """A class that has no map of its own counts as lost, not as left out."""
    try:
        seen = encoder.read(real)
    except RuntimeError as error:
        checked_size(real, images_in_unit_range(generator, like[:2]), error)
        raise
    answers = predict_classes(seen.logits).cpu()
    known = torch.ones(len(real), dtype=torch.bool)
    if link.variant == "per_class" and link.class_means is not None:
        known = torch.isin(answers, torch.tensor(sorted(link.class_means.counts)))
    same = torch.zeros(len(real), dtype=torch.bool)
    if known.any():
        latents = link(seen.representations[known.to(seen.representations.device)], answers[known])
        same[known] = (
            predict_classes(_shown(encoder, generator, latents, like).logits, seen.logits).cpu() == answers[known]
        )
    return _share(same, seed)


def _searched(
    link: LatentLink, held_out: Pairs, predicted: Tensor, encoder: Encoder, generator: Generator, rows: int
) -> dict[str, Any]:
    r, start = held_out.representations[:rows], predicted[:rows].to(held_out.latents)
    best = latent_search(encoder, generator, r, start, scale=link.r_sd)
    after, before = (_shown(encoder, generator, w, start).representations.to(r) for w in (best.latents, start))
    return {"search_cycle_r2": float(r2(r, after)), "search_from": float(r2(r, before)), "searched": len(r)}


def _shown(encoder: Encoder, generator: Generator, latents: Tensor, like: Tensor, batch_size: int = 64) -> Encoded:
    """What the classifier makes of the latents' pictures."""
    parts = [
        encoder.read(images_in_unit_range(generator, latents[a:b].to(like)))
        for a, b in chunks(len(latents), batch_size)
    ]
    return Encoded(*(torch.cat(same) for same in zip(*parts, strict=True)))


def _within(held_out: Pairs, predicted: Tensor) -> float | None:
    """None where nothing varies within classes."""
    found = float(r2_within(held_out.latents, predicted.to(held_out.latents), held_out.classes))
    return found if math.isfinite(found) else None


def _share(hits: Tensor, seed: int) -> Interval:
    return ratio_interval(hits.double(), torch.ones(len(hits), dtype=torch.float64), seed=seed)
