"""Let a generator draw, let a classifier look, and keep what belongs together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ...generators.features import modules_of
from ...generators.protocol import Generator
from ...hooks import ForwardFunc, guarded
from ...model_hash import model_sha256
from ...progress import progress
from ...targets import OutputFn
from .encoder import Encoder, Preprocess
from .pair_stream import ANY, PairStream
from .pairs import Pairs
from .pooling import Pool


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
            raise ValueError(f"{name} is {value}; wanted at least 1.")
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
    wanted = {c: n // len(asked) + (place < n % len(asked)) for place, c in enumerate(asked)}
    stream = PairStream(encoder, generator, wanted, truncation, random, keep_class)
    bar = progress(range(n), "pairs", show=show_progress)
    with torch.no_grad(), guarded(forward_func, *modules_of(generator)):
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
        raise ValueError(f"classes are {asked}; wanted at least one, each once.")
    unknown = [c for c in asked if not 0 <= c < known]
    if unknown:
        has = f"it knows 0 to {known - 1}" if known else "it knows no classes"
        raise ValueError(f"class {unknown[0]} is not one of the generator's: {has}.")
    return asked
