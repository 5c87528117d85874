"""Drawing, looking and keeping, one batch at a time."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ...generators.protocol import Generator, pictures_in_unit_range
from ...metrics.row_hash import row_hashes
from .encoder import Encoder
from .pairs import Pairs

ANY = -1  # the class of a generator that knows none


class PairStream:
    """What :func:`make_pairs` repeats until it has enough.

    Args:
        encoder: the classifier's half.
        generator: draws the pictures.
        wanted: pairs of each class.
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
        wanted: dict[int, int],
        truncation: float,
        random: torch.Generator,
        keep_class: bool,
    ) -> None:
        self.encoder, self.generator, self.truncation, self.random = encoder, generator, truncation, random
        self.wanted, self.lacking = wanted, {c: count for c, count in wanted.items() if count}
        self.checked = keep_class and ANY not in wanted
        self.drawn = self.good = 0
        self._seen: set[int] = set()
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def step(self, size: int) -> int:
        """Draw ``size`` pictures; how many pairs they gave."""
        asked = self._turns(size)
        self.drawn += size
        classes = None if ANY in self.wanted else torch.tensor(asked)
        latents = self.generator.sample_latents(size, classes, self.truncation, generator=self.random)
        if latents.dim() != 2 or len(latents) != size or not latents.isfinite().all():
            raise ValueError(
                f"the generator sampled latents of shape {tuple(latents.shape)}, wanted finite ({size}, latent_dim); "
                "check_generator() tells more."
            )
        found = self.encoder.read(pictures_in_unit_range(self.generator, latents), batch_size=size)
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
        each = [f"{n - self.lacking.get(c, 0)} of {n} of class {c}" for c, n in self.wanted.items() if c != ANY]
        hint = "Does the model know these pictures? Lower truncation, or raise" if self.checked else "Raise"
        return (
            f"{self.drawn} pictures gave {len(self._seen)} of {sum(self.wanted.values())} pairs"
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
