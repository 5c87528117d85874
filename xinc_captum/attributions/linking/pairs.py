"""Sample (representation, latent) pairs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import OutputFn
from ...fingerprint import model_sha256
from ...generators.protocol import Generator, images_in_unit_range, modules_of
from ...hooks import ForwardFunc, protect
from ...metrics.links import row_hashes
from ...progress import progress
from .encoder import Encoder, Pool, Preprocess


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
            raise ValueError(f"held_out is {held_out}; expected a share between 0 and 1.")
        generator = torch.Generator().manual_seed(seed)
        away = torch.zeros(len(self), dtype=torch.bool)
        classes = self.classes.cpu()
        for c in classes.unique().tolist():
            own = (classes == c).nonzero()[:, 0]
            away[own[torch.randperm(len(own), generator=generator)[: round(held_out * len(own))]]] = True
        if away.all() or not away.any():
            raise ValueError(f"holding out {held_out:g} of {len(self)} pairs leaves one side empty; make more pairs.")
        return self.take(~away), self.take(away)


ANY = -1  # the class of a generator that knows none


class PairStream:
    """What :func:`make_pairs` repeats until it has enough.

    Args:
        encoder: the classifier's half.
        generator: draws the pictures.
        expected: pairs of each class.
        truncation: of the latents.
        random: the one random stream.
        keep_class: only pictures that the classifier gives the class they were drawn of.

    Attributes:
        lacking: pairs that each class still wants; a class that has all is gone.
        drawn: pictures so far.
    """

    def __init__(
        self,
        encoder: Encoder,
        generator: Generator,
        expected: dict[int, int],
        truncation: float,
        random: torch.Generator,
        keep_class: bool,
    ) -> None:
        self.encoder, self.generator, self.truncation, self.random = encoder, generator, truncation, random
        self.expected, self.lacking = expected, {c: count for c, count in expected.items() if count}
        self.checked = keep_class and ANY not in expected
        self.drawn = self.good = 0
        self._seen: set[int] = set()
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def step(self, size: int) -> int:
        """Draw ``size`` pictures; how many pairs they gave."""
        asked = self._turns(size)
        self.drawn += size
        classes = None if ANY in self.expected else torch.tensor(asked)
        latents = self.generator.sample_latents(size, classes, self.truncation, generator=self.random)
        if latents.dim() != 2 or len(latents) != size or not latents.isfinite().all():
            raise ValueError(
                f"the generator sampled latents of shape {tuple(latents.shape)}, expected finite ({size}, latent_dim); "
                "check_generator() tells more."
            )
        found = self.encoder.read(images_in_unit_range(self.generator, latents), batch_size=size)
        if self.checked and max(asked) >= found.logits.shape[1]:
            raise ValueError(
                f"class {max(asked)} was drawn, but the model scores {found.logits.shape[1]} classes; generator and "
                "model must number classes alike, or give keep_class=False."
            )
        answers = found.logits.argmax(1).cpu()
        rows = torch.tensor(self._kept(asked, answers, latents), dtype=torch.long)
        own = (found.representations, latents, answers if classes is None else classes, found.logits)
        r, w, c, logits = (t[rows.to(t.device)] for t in own)
        self._parts.append((r, w, c, logits))
        return len(rows)

    def pairs(self, manifest: dict[str, Any]) -> Pairs:
        """Everything that was kept."""
        r, w, c, logits = (torch.cat(same) for same in zip(*self._parts, strict=True))
        return Pairs(r, w, c, logits, self.good / self.drawn, manifest)

    def ran_out(self) -> str:
        """What to say when the attempts are used up."""
        each = [f"{n - self.lacking.get(c, 0)} of {n} of class {c}" for c, n in self.expected.items() if c != ANY]
        hint = "Does the model know these pictures? Lower truncation, or raise" if self.checked else "Raise"
        return (
            f"{self.drawn} pictures gave {len(self._seen)} of {sum(self.expected.values())} pairs"
            f"{' (' + ', '.join(each) + ')' if each else ''}, and max_attempts allows no more. {hint} max_attempts, or "
            "see whether latents repeat (at truncation 0 a class has one)."
        )

    def _turns(self, size: int) -> list[int]:
        """Classes for the next pictures, in proportion to what each lacks, so that none has to wait for another."""
        kept, ends = list(self.lacking), list(accumulate(self.lacking.values()))
        return [kept[bisect_right(ends, place * ends[-1] // size)] for place in range(size)]

    def _kept(self, asked: list[int], answers: Tensor, latents: Tensor) -> list[int]:
        kept = []
        for row, (c, answer, number) in enumerate(
            zip(asked, answers.tolist(), row_hashes(latents).tolist(), strict=True)
        ):
            if (self.checked and answer != c) or number in self._seen:
                continue
            self.good += 1
            if c in self.lacking:
                self._seen.add(number)
                kept.append(row)
                self.lacking[c] -= 1
                if not self.lacking[c]:
                    del self.lacking[c]
        return kept


def make_pairs(
    forward_func: ForwardFunc,
    layer: nn.Module | str,
    generator: Generator,
    n: int,
    *,
    classes: Sequence[int] | None = None,
    truncation: float = 0.7,
    rng: torch.Generator | int = 0,
    keep_class: bool = True,
    max_attempts: int = 20,
    batch_size: int = 64,
    attribute_to_neuron_input: bool = True,
    preprocess: Preprocess | None = None,
    pool: Pool = "auto",
    output_fn: OutputFn | None = None,
    show_progress: bool = False,
    unit_axis: int | None = None,
) -> Pairs:
    r"""``n`` pairs of a representation and the latent of the picture that it represents.

    .. math:: r_i = h(G(w_i)), \qquad w_i \sim p(w \mid c_i), \quad \arg\max f(G(w_i)) = c_i

    Every latent is new: one random stream runs through all retries (the released code begins the same stream again for
    each, which repeats pictures and may never end), and no latent is taken twice.

    Args:
        forward_func: the classifier.
        layer: whose input (or output) is the representation.
        generator: draws the pictures.
        n: pairs in all, shared out evenly over the classes.
        classes: which; by default all that the generator knows. Generator and classifier must number them alike.
        truncation: as in ``generator.sample_latents``.
        rng: the random stream, or a seed for a new one.
        keep_class: keep only pictures that the classifier gives the class they were drawn of; means nothing where the
            generator knows no classes.
        max_attempts: draw at most so many pictures a pair.
        batch_size: pictures at once.
        attribute_to_neuron_input: as in :class:`Encoder`, like the next three.
        preprocess: see there.
        pool: see there.
        output_fn: see there.
        show_progress: draw a bar.
        unit_axis: as in :class:`Encoder`.

    Returns:
        a :class:`Pairs`, in the order in which they were accepted.

    Raises:
        ValueError: n, classes, latents or pictures that cannot be; or so few accepted that the attempts ran out (the
            text says how many of each class were found).

    Example:
        >>> from xinc_captum.generators import EigenGenerator
        >>> eigen = EigenGenerator(torch.rand(40, 1, 4, 4), torch.arange(40) % 2, components=5)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3), torch.nn.Linear(3, 2))
        >>> make_pairs(model, "2", eigen, 10, keep_class=False).representations.shape
        torch.Size([10, 3])

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865), the released sampling.
    """
    for name, value in (("n", n), ("max_attempts", max_attempts), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1.")
    asked = _asked(classes, generator)
    encoder = Encoder(
        forward_func,
        layer,
        attribute_to_neuron_input=attribute_to_neuron_input,
        preprocess=preprocess,
        pool=pool,
        output_fn=output_fn,
        unit_axis=unit_axis,
    )
    random = torch.Generator().manual_seed(rng) if isinstance(rng, int) else rng
    manifest = {
        **encoder.describe(),
        "truncation": truncation,
        "classes": [c for c in asked if c != ANY],
        "keep_class": keep_class,
        "seed": random.initial_seed(),
        "model_sha256": model_sha256(forward_func),
        "generator_sha256": model_sha256(generator),
    }
    expected = {c: n // len(asked) + (place < n % len(asked)) for place, c in enumerate(asked)}
    stream = PairStream(encoder, generator, expected, truncation, random, keep_class)
    bar = progress(range(n), "pairs", show=show_progress)
    with torch.no_grad(), protect(forward_func, *modules_of(generator)):
        while stream.lacking:
            if stream.drawn >= max_attempts * n:
                raise ValueError(stream.ran_out())
            for _ in range(stream.step(min(batch_size, max_attempts * n - stream.drawn))):
                next(bar)
    return stream.pairs(manifest)


def _asked(classes: Sequence[int] | None, generator: Generator) -> list[int]:
    known = int(getattr(generator, "num_classes", 0))
    if classes is None:
        return list(range(known)) or [ANY]
    asked = [int(c) for c in classes]
    if not asked or len(set(asked)) < len(asked):
        raise ValueError(f"classes are {asked}; expected at least one, each once.")
    unknown = [c for c in asked if not 0 <= c < known]
    if unknown:
        has = f"it knows 0 to {known - 1}" if known else "it knows no classes"
        raise ValueError(f"class {unknown[0]} is not one of the generator's: {has}.")
    return asked
