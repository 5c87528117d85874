"""Collect the evidence for a :class:`LinkAudit`."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...batch import chunks
from ...generators.features import modules_of
from ...generators.protocol import Generator, pictures_in_unit_range
from ...hooks import guarded
from ...images import check_images
from ...metrics.bootstrap import Interval, flipped, ratio_interval
from ...metrics.duplicates import duplicates, leaks
from ...metrics.identifiability import tolerance, unit_agreement
from ...metrics.link_fit import (
    class_means,
    r2,
    r2_within,
    squares,
)
from ...metrics.probability import predicted_classes
from ...metrics.semantic_order import semantic_order
from ...metrics.shuffles import shuffled_within
from .encoder import Encoded, Encoder
from .latent_search import latent_search
from .link_audit import LinkAudit
from .link_checks import checked_encoder, checked_size
from .mlp_link import MLPLink
from .pairs import Pairs
from .regression import UndeterminedError

if TYPE_CHECKING:
    from .latent_link import LatentLink


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
        with torch.no_grad(), guarded(encoder.forward_func, *modules_of(generator)):
            drawn = pictures_in_unit_range(generator, held_out.latents[:2])
            checked_encoder(encoder, held_out, encoder(drawn))
    predicted = link(held_out.representations, held_out.classes)
    found = _explained(held_out, predicted, seed) | _compared(link, held_out, fit, ceiling, seed)
    if encoder is not None and generator is not None:
        with torch.no_grad(), guarded(encoder.forward_func, *modules_of(generator)):
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
    found: dict[str, Any] = {"r2": flipped(ratio_interval(*squares(held_out.latents, predicted), seed=seed))}
    error, around = squares(held_out.latents, predicted, held_out.classes)
    if float(around.sum()) > 0:
        found["r2_within"] = flipped(ratio_interval(error, around, seed=seed))
    found["class_mean_r2"] = float(r2(held_out.latents, class_means(held_out.latents, held_out.classes)))
    found["order"] = semantic_order(held_out.representations, held_out.latents, held_out.classes, seed=seed)
    return found


def _compared(link: LatentLink, held_out: Pairs, fit: Pairs | None, ceiling: bool, seed: int) -> dict[str, Any]:
    """What the fitted pairs are needed for: the shuffled control, leaving one out, and a network."""
    if fit is None:
        return {}
    r, w, classes = fit.representations, fit.latents, fit.classes
    generator = torch.Generator().manual_seed(seed)
    control = type(link)(**link.settings).partial_fit(r, shuffled_within(w, classes, generator), classes)
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
    before, after = (predicted_classes(side, held_out.logits).cpu() for side in (held_out.logits, again.logits))
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
        checked_size(real, pictures_in_unit_range(generator, like[:2]), error)
        raise
    answers = predicted_classes(seen.logits).cpu()
    known = torch.ones(len(real), dtype=torch.bool)
    if link.variant == "per_class" and link.class_means is not None:
        known = torch.isin(answers, torch.tensor(sorted(link.class_means.counts)))
    same = torch.zeros(len(real), dtype=torch.bool)
    if known.any():
        latents = link(seen.representations[known.to(seen.representations.device)], answers[known])
        same[known] = (
            predicted_classes(_shown(encoder, generator, latents, like).logits, seen.logits).cpu() == answers[known]
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
        encoder.read(pictures_in_unit_range(generator, latents[a:b].to(like)))
        for a, b in chunks(len(latents), batch_size)
    ]
    return Encoded(*(torch.cat(same) for same in zip(*parts, strict=True)))


def _within(held_out: Pairs, predicted: Tensor) -> float | None:
    """None where nothing varies within classes."""
    found = float(r2_within(held_out.latents, predicted.to(held_out.latents), held_out.classes))
    return found if math.isfinite(found) else None


def _share(hits: Tensor, seed: int) -> Interval:
    return ratio_interval(hits.double(), torch.ones(len(hits), dtype=torch.float64), seed=seed)
