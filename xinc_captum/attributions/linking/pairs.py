"""Rejection sampling of (representation, latent) pairs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import OutputFn, random_generator
from ...generators.protocol import Generator, images_in_unit_range, modules_of
from ...hooks import ForwardFunc, protect
from ...metrics.links import row_hashes
from ...progress import progress
from ...store import model_sha256
from .loop import Encoder, Pool, Preprocess


@dataclass(frozen=True, eq=False)
class Pairs:
    """Result of :func:`make_pairs`; tensors are detached.

    Attributes:
        representations: (n, units).
        latents: (n, latent_dim).
        classes: (n,) the class each image was generated for, or the model's prediction if the generator has no classes.
        logits: (n, outputs) the model's output.
        kept: share of the generated images that became pairs.
        manifest: how they were made.
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
        """Return the pairs of an index or a mask."""
        fields = (self.representations, self.latents, self.classes, self.logits)
        r, w, c, logits = (t[rows.to(t.device)] for t in fields)
        return Pairs(r, w, c, logits, self.kept, self.manifest)

    def split(self, held_out: float = 0.2, *, seed: int = 0) -> tuple[Pairs, Pairs]:
        """Return pairs to fit and held-out pairs: a fraction of each class, sampled with ``seed``.

        Raises:
            ValueError: a fraction outside (0, 1), or so few pairs that one side is empty.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"held_out is {held_out}; expected a fraction between 0 and 1.")
        generator = random_generator(seed)
        mask = torch.zeros(len(self), dtype=torch.bool)
        classes = self.classes.cpu()
        for c in classes.unique().tolist():
            members = (classes == c).nonzero()[:, 0]
            order = torch.randperm(len(members), generator=generator)
            mask[members[order[: round(held_out * len(members))]]] = True
        if mask.all() or not mask.any():
            raise ValueError(f"holding out {held_out:g} of {len(self)} pairs leaves one side empty; make more pairs.")
        return self.take(~mask), self.take(mask)


ANY = -1  # the class of a generator without classes


@dataclass(eq=False)
class PairSampler:
    """The state of :func:`make_pairs`: pairs so far, and how many of ``counts`` are missing of each class."""

    encoder: Encoder
    generator: Generator
    counts: dict[int, int]
    truncation: float
    random: torch.Generator
    keep_class: bool
    generated: int = 0
    accepted: int = 0

    def __post_init__(self) -> None:
        self.missing = {c: count for c, count in self.counts.items() if count}  # complete classes are removed
        self.checks_class = self.keep_class and ANY not in self.counts
        self._hashes: set[int] = set()
        self._chunks: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def step(self, size: int) -> int:
        """Generate ``size`` images; return the number of new pairs."""
        labels = self._next_classes(size)
        self.generated += size
        classes = None if ANY in self.counts else torch.tensor(labels)
        latents = self.generator.sample_latents(size, classes, self.truncation, generator=self.random)
        if latents.dim() != 2 or len(latents) != size or not latents.isfinite().all():
            raise ValueError(
                f"the generator sampled latents of shape {tuple(latents.shape)}; expected finite ({size}, latent_dim). "
                "Check the generator with check_generator()."
            )
        encoded = self.encoder.encode(images_in_unit_range(self.generator, latents), batch_size=size)
        if self.checks_class and max(labels) >= encoded.logits.shape[1]:
            raise ValueError(
                f"images of class {max(labels)} were generated, but the model has {encoded.logits.shape[1]} classes. "
                "Generator and model must use the same class numbers, or give keep_class=False."
            )
        predictions = encoded.logits.argmax(1).cpu()
        rows = torch.tensor(self._accept(labels, predictions, latents), dtype=torch.long)
        batch = (encoded.representations, latents, predictions if classes is None else classes, encoded.logits)
        r, w, c, logits = (t[rows.to(t.device)] for t in batch)
        self._chunks.append((r, w, c, logits))
        return len(rows)

    def pairs(self, manifest: dict[str, Any]) -> Pairs:
        """Return all pairs."""
        r, w, c, logits = (torch.cat(same) for same in zip(*self._chunks, strict=True))
        return Pairs(r, w, c, logits, self.accepted / self.generated, manifest)

    def too_many_attempts(self) -> str:
        """Return the error text for the limit of attempts."""
        each = [f"{n - self.missing.get(c, 0)} of {n} of class {c}" for c, n in self.counts.items() if c != ANY]
        hint = (
            "Check that the model predicts these classes, lower truncation, or raise" if self.checks_class else "Raise"
        )
        return (
            f"{self.generated} images gave {len(self._hashes)} of {sum(self.counts.values())} pairs"
            f"{' (' + ', '.join(each) + ')' if each else ''}, and max_attempts allows no more. {hint} max_attempts, or "
            "check whether latents repeat (at truncation 0 a class has one)."
        )

    def _next_classes(self, size: int) -> list[int]:
        """Return classes for the next images, in proportion to their missing pairs."""
        classes, ends = list(self.missing), list(accumulate(self.missing.values()))
        return [classes[bisect_right(ends, position * ends[-1] // size)] for position in range(size)]

    def _accept(self, labels: list[int], predictions: Tensor, latents: Tensor) -> list[int]:
        """Return the rows that become pairs: of the right class, with a new latent."""
        rows = []
        for row, (label, prediction, latent_hash) in enumerate(
            zip(labels, predictions.tolist(), row_hashes(latents).tolist(), strict=True)
        ):
            if (self.checks_class and prediction != label) or latent_hash in self._hashes:
                continue
            self.accepted += 1
            if label in self.missing:
                self._hashes.add(latent_hash)
                rows.append(row)
                self.missing[label] -= 1
                if not self.missing[label]:
                    del self.missing[label]
        return rows


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
    r"""Return ``n`` pairs of a generated image's representation and its latent, in the order of acceptance.

    .. math:: r_i = h(G(w_i)), \qquad w_i \sim p(w \mid c_i), \quad \arg\max f(G(w_i)) = c_i

    Symbols: G the generator, h the encoder, f the classifier's scores, w_i a latent of class c_i; the last condition
    only with ``keep_class``. All retries use one random stream, and no latent is used twice. (The released code
    restarts the stream for each retry, which repeats images and may never end.)

    Args:
        forward_func: the classifier.
        layer: module or dotted name, whose input (or output) is the representation.
        generator: latents to images.
        n: number of pairs in all, distributed evenly over the classes.
        classes: the classes; None uses all of the generator. Generator and classifier must use the same numbers.
        truncation: as in ``generator.sample_latents``.
        rng: the random stream, or the seed of a new one.
        keep_class: whether to reject images whose prediction differs from the class they were generated for.
        max_attempts: maximum number of generated images per pair.
        batch_size: number of images in one forward pass.
        attribute_to_neuron_input: as in :class:`Encoder`.
        preprocess: as in :class:`Encoder`.
        pool: as in :class:`Encoder`.
        output_fn: as in :class:`Encoder`.
        show_progress: whether to show a progress bar.
        unit_axis: as in :class:`Encoder`.

    Raises:
        ValueError: invalid n, classes, latents or images; or too few pairs within ``max_attempts``.

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
    labels = _check_classes(classes, generator)
    encoder = Encoder(
        forward_func,
        layer,
        attribute_to_neuron_input=attribute_to_neuron_input,
        preprocess=preprocess,
        pool=pool,
        output_fn=output_fn,
        unit_axis=unit_axis,
    )
    random = rng if isinstance(rng, torch.Generator) else random_generator(rng)
    manifest = {
        **encoder.describe(),
        "truncation": truncation,
        "classes": [c for c in labels if c != ANY],
        "keep_class": keep_class,
        "seed": random.initial_seed(),
        "model_sha256": model_sha256(forward_func),
        "generator_sha256": model_sha256(generator),
    }
    counts = {c: n // len(labels) + (i < n % len(labels)) for i, c in enumerate(labels)}
    sampler = PairSampler(encoder, generator, counts, truncation, random, keep_class)
    bar = progress(range(n), "pairs", show=show_progress)
    with torch.no_grad(), protect(forward_func, *modules_of(generator)):
        while sampler.missing:
            if sampler.generated >= max_attempts * n:
                raise ValueError(sampler.too_many_attempts())
            for _ in range(sampler.step(min(batch_size, max_attempts * n - sampler.generated))):
                next(bar)
    return sampler.pairs(manifest)


def _check_classes(classes: Sequence[int] | None, generator: Generator) -> list[int]:
    """Return the classes as given, or all of the generator; ``[ANY]`` if it has none."""
    count = int(getattr(generator, "num_classes", 0))
    if classes is None:
        return list(range(count)) or [ANY]
    labels = [int(c) for c in classes]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"classes are {labels}; expected at least one, each once.")
    unknown = [c for c in labels if not 0 <= c < count]
    if unknown:
        available = f"it has the classes 0 to {count - 1}" if count else "it has no classes"
        raise ValueError(f"class {unknown[0]} is not one of the generator's: {available}.")
    return labels
