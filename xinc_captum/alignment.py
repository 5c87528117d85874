"""Which additional arguments hold one entry for each sample, found by running the model on one and on two samples."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .batch import Args, Batch

Run = Callable[[Batch], Any]

_MOST = 4  # arguments whose combinations are all tried
_LOOKED = 64  # samples among which two with different arguments are looked for


class _RowsError(ValueError):
    """An output without one row for each sample."""


def settled(batch: Batch, run: Run) -> Batch:
    """Return the batch with a decision for every tensor argument that has as many rows as the inputs.

    Such a tensor may hold one entry for each sample (a depth map, a label), and is cut and repeated along with the
    inputs; or it may be shared by all samples and have as many rows by chance (class embeddings, an adjacency matrix),
    and is passed whole. The right way is the one under which a sample's output is the same alone and beside another
    sample. Where both ways pass, one run of the whole batch decides, and a tensor that need not be cut is passed whole.
    A batch without such tensors is returned as it is, and nothing runs.

    Args:
        batch: all samples of a call.
        run: from some of them to the model's output: a tensor, or any nest of tensors, with samples first.

    Returns:
        the same samples. If neither way passes, cutting or repeating them raises an error.

    Example:
        >>> bank, images = torch.eye(3)[:2], torch.rand(2, 3)
        >>> settled(Batch.of(images, bank), lambda some: some.inputs[0] @ some.args[0].T).args.aligned
        frozenset()
        >>> settled(Batch.of(images, bank), lambda some: some.inputs[0] * some.args[0]).args.aligned
        frozenset({0})
    """
    args = batch.args if isinstance(batch.args, Args) else Args(batch.args)
    if args.known or not args.aligned:
        return batch
    with torch.no_grad():
        return replace(batch, args=_Probe(batch, args, run).decided())


class _Probe:
    def __init__(self, batch: Batch, args: Args, run: Run) -> None:
        self.batch, self.args, self.run = batch, args, run
        self.other = _different(batch, args)
        self.one, self.two = (torch.tensor(at, device=batch.inputs[0].device) for at in ([self.other], [0, self.other]))
        self.error = ""

    def decided(self) -> Args:
        """The arguments with what was found of them."""
        every = self.args.aligned
        pair = self.pair(every)
        if pair is not None and _close(*pair) and all(self.tied(at) for at in every):
            return Args(self.args, every, True)
        tried = sorted(every) if len(every) <= _MOST else []
        sets = [frozenset(some) for size in range(len(tried)) for some in combinations(tried, size)]
        pairs = {some: found for some in [*sets, every] if (found := self.pair(some)) is not None}
        same = {some: found for some, found in pairs.items() if _close(*found)} or pairs  # dropout is never the same
        if len(same) > 1:
            same = self.agreeing(same)
        if same:
            return Args(self.args, sorted(same, key=_count)[0], True)
        shapes = ", ".join(f"{at}: {tuple(self.args[at].shape)}" for at in sorted(every))
        return Args(
            self.args,
            every,
            True,
            f"additional_forward_args hold tensors with as many rows as the {self.batch.rows} inputs ({shapes}), and "
            "the output of a sample differs with the samples beside it, whether these tensors are cut along with the "
            f"inputs or passed whole{self.error}. Explain all samples in one piece (no internal_batch_size, a larger "
            "memory_budget), or give what all samples share inside of the function: lambda x: model(x, shared).",
        )

    def pair(self, aligned: frozenset[int]) -> tuple[list[Tensor], list[Tensor]] | None:
        """What the model makes of a sample alone and beside another one; None where it fails or shapes differ."""
        some = replace(self.batch, args=Args(self.args, aligned))
        try:
            alone, beside = self.leaves(some.take(self.one), 1), self.leaves(some.take(self.two), 2)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model does with arguments of the wrong size
            self.error = f" (the model says: {error})" if not isinstance(error, _RowsError) else self.error
            return None
        if len(alone) != len(beside) or any(a.shape[1:] != b.shape[1:] for a, b in zip(alone, beside, strict=True)):
            return None
        return alone, [leaf[-1:] for leaf in beside]

    def tied(self, at: int) -> bool:
        """Whether one sample with two entries of an argument is no batch of one sample."""
        one = replace(self.batch, args=self.args).take(self.one)
        changed = list(one.args)
        changed[at] = self.args[at].index_select(0, self.two.to(self.args[at].device))
        try:
            self.leaves(replace(one, args=Args(changed, self.args.aligned)), 1)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return True
        return False

    def agreeing(self, pairs: dict[frozenset[int], Any]) -> dict[frozenset[int], Any]:
        """Those under which a sample alone has the output that it has in the whole batch, where they differ at all."""
        first, *rest = pairs.values()
        if all(_close(first[0], other[0]) for other in rest):
            return pairs
        whole = [leaf[self.other : self.other + 1] for leaf in self.leaves(self.batch, self.batch.rows)]
        return {some: found for some, found in pairs.items() if _close(found[0], whole)}

    def leaves(self, some: Batch, rows: int) -> list[Tensor]:
        found = [leaf for leaf in tree_leaves(self.run(some)) if isinstance(leaf, Tensor)]
        found = [leaf for leaf in found if leaf.dim() and leaf.shape[0] == rows]
        if not found:
            raise _RowsError
        return found


def _count(some: frozenset[int]) -> int:
    return len(some)


def _different(batch: Batch, args: Args) -> int:
    """A sample whose arguments differ from those of the first one, where there is one."""
    for at in sorted(args.aligned):
        some = args[at][:_LOOKED]
        differs = (some != some[:1]).flatten(1).any(1) if some.dim() > 1 else some != some[:1]
        if bool(differs.any()):
            return int(differs.nonzero()[0])
    return min(1, batch.rows - 1)


def _close(some: Iterable[Tensor], other: Iterable[Tensor]) -> bool:
    """Equal within what rounding makes of other batch sizes."""
    for a, b in zip(some, other, strict=True):
        if a.shape != b.shape:
            return False
        if not a.is_floating_point():
            if not torch.equal(a, b):
                return False
            continue
        bound = torch.finfo(a.dtype).eps ** 0.5 * a.nan_to_num(0, 0, 0).abs().max() if a.numel() else 0.0
        if not bool(((a == b) | ((a - b).abs() <= bound)).all()):
            return False
    return True
