"""A few rows of a long stream, each row with the same chance, whatever the chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from ...metrics.row_hash import mixed, row_hashes


class Reservoir:
    """The rows of a stream with the lowest random keys, (at most ``size``, units), float32.

    A row's key is a hash of its values and the seed, so that chunks, shards and their order make no difference, and a
    row that comes twice is kept once.

    Args:
        size: rows kept.
        seed: another seed keeps other rows.

    Attributes:
        rows: (k, units), lowest key first.
        keys: (k,) int64.

    Example:
        >>> kept = Reservoir(2)
        >>> kept.add(torch.rand(50, 3))
        >>> kept.rows.shape
        torch.Size([2, 3])

    Source: Cohen, Kaplan 2007, "Summarizing data using bottom-k sketches".
    """

    def __init__(self, size: int = 1024, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        self.rows = torch.empty(0, 0)
        self.keys = torch.empty(0, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        """Take in a chunk, (n, units)."""
        if len(rows):
            self._take(rows.detach().to(torch.float32), mixed(row_hashes(rows) ^ self.seed))

    def merge(self, other: Reservoir) -> None:
        """Take in what another reservoir kept.

        Raises:
            ValueError: as :meth:`check_alike`.
        """
        self.check_alike(other)
        if len(other.keys):
            self._take(other.rows, other.keys)

    def check_alike(self, other: Reservoir) -> None:
        """Let reservoirs be merged only if their rows were chosen alike.

        Raises:
            ValueError: another seed, or another size: of a smaller one's stream too few rows would be among the lowest.
        """
        if (other.seed, other.size) != (self.seed, self.size):
            raise ValueError(
                f"got a reservoir of {other.size} rows and seed {other.seed} to merge into one of {self.size} rows and "
                f"seed {self.seed}; wanted the same."
            )

    def _take(self, rows: Tensor, keys: Tensor) -> None:
        if not len(self.keys):
            self.rows, self.keys = rows[:0], keys[:0]
        both = torch.cat([self.keys, keys.to(self.keys.device)])
        alone, where = both.unique(return_inverse=True)
        first = torch.full_like(alone, len(both)).scatter_reduce_(
            0, where, torch.arange(len(both), device=both.device), "amin"
        )[: self.size]
        self.rows = torch.cat([self.rows, rows.to(self.rows.device)])[first]
        self.keys = both[first]
