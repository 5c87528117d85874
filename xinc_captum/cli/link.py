"""``xinc link``: link a classifier's layer to a generator, say how far to believe it, and show what units mean."""

import json
import time
from enum import StrEnum
from pathlib import Path

import typer

from .. import store
from ..attributions.linking import LatentLink, Pairs, make_pairs
from ..visualizers.words import predicate
from .device import device_called
from .ends import Ends, ends_called
from .explore_link import keep
from .failures import UsageError
from .link_page import write_page
from .link_story import Story, audited, units_of
from .linked import FILE, described
from .real import real_called
from .recorded import recorded

FEWEST = 3  # pairs of a class, of which one is then held out


class Variant(StrEnum):
    """Forms of the link."""

    linear = "linear"
    per_class = "per_class"
    fourier_features = "fourier_features"


@recorded("link", "real")
def link_command(
    out: Path,
    model: str,
    generator: str,
    layer: str | None,
    variant: Variant,
    pairs: int,
    truncation: float,
    real: str | None,
    seed: int,
    device: str,
) -> None:
    """Everything ``xinc link`` does; the folder appears whole or not at all."""
    started = time.perf_counter()
    store.check_folder(out)
    ends = ends_called(model, generator, layer, device_called(device))
    photos = real_called(real, ends)
    known = int(getattr(ends.generator, "num_classes", 0))
    if pairs < FEWEST * known:
        raise UsageError(
            f"--pairs is {pairs}; {generator} draws {known} classes, and a fifth of each is held out: wanted at least "
            f"{FEWEST * known}, and {10 * known} or more for an audit that can tell what varies within a class."
        )
    typer.echo(f"drawing {pairs:,} pictures by {generator} and showing them to {model} …")
    found = pairs_of(ends, pairs, truncation, seed)
    link = LatentLink(variant.value, seed=seed)
    try:
        fit, held_out = found.split(0.2, seed=seed)
        link.fit(fit.representations, fit.latents, fit.classes, manifest=found.manifest)
    except ValueError as error:
        raise UsageError(f"{error} Give more --pairs, or another --variant.") from error
    audit = audited(ends, link, fit, held_out, photos, seed)
    typer.echo(f"the link {predicate(audit.trust)}")
    typer.echo("setting units …")
    units = units_of(ends, link, held_out, truncation, seed)
    story = Story(ends, link, held_out, len(found), found.kept, audit, units, photos)
    note = {
        "seed": seed,
        "ends": described(ends),
        "trust": str(audit.trust),
        "truncation": truncation,
        "variant": variant.value,
        "pairs": {**found.manifest, "count": len(found), "kept": round(found.kept, 4)},
        "audit": {name: value for name, value in audit.to_dict().items() if not name.startswith("unit_")},
        "units": [
            {
                "unit": s.unit,
                "verdict": s.trust.verdict,
                "because": s.trust.because,
                "rank": s.fidelity.rank,
                "rho": round(s.fidelity.rho, 4),
                "shown_in": f"drawn: {ends.label(int(s.base_scores[row].argmax()))}",
            }
            for s, row in zip(units.sweeps, units.rows, strict=True)
        ],
    }
    with store.bundle(out, note) as folder:
        link.save(folder / FILE)
        write_page(folder, story)
        keep(folder, units.sweeps, units.rows, units.films)
        times = {"all_seconds": round(time.perf_counter() - started, 1)}
        (folder / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def pairs_of(ends: Ends, count: int, truncation: float, seed: int) -> Pairs:
    """Pairs of the ends; only pictures answered as they were meant, where both know the same classes.

    Raises:
        UsageError: too few pictures are answered as meant, or a count that cannot be.
    """
    try:
        return make_pairs(
            ends.classifier.model,
            ends.layer,
            ends.generator,
            count,
            truncation=truncation,
            rng=seed,
            keep_class=ends.share_classes,
            preprocess=ends.preprocess,
            show_progress=True,
        )
    except ValueError as error:
        raise UsageError(f"{error} What this command lets you change are --truncation, --pairs and --seed.") from error
