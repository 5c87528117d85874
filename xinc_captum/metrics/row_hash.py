"""One 64-bit number for each row, so that repeated rows can be found without keeping the rows."""

import torch
from torch import Tensor


def mixed(numbers: Tensor) -> Tensor:
    """Scramble 64-bit integers so that every bit of the input changes about half of the bits of the answer.

    Example:
        >>> len(set(mixed(torch.arange(1000)).tolist()))
        1000

    Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators": the finaliser of SplitMix64.
    """
    z = numbers.to(torch.int64) + _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def row_hashes(rows: Tensor) -> Tensor:
    """A hash of each row's values as float32: equal rows have equal hashes, others next to never.

    Args:
        rows: (n, columns), any float dtype; -0 counts as 0.

    Returns:
        (n,) int64.

    Example:
        >>> a, b = row_hashes(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
        >>> bool(a == b)
        False
    """
    bits = (rows.detach().flatten(1).to(torch.float32) + 0.0).contiguous().view(torch.int32).to(torch.int64)
    place = mixed(torch.arange(bits.shape[1], device=bits.device))
    return mixed(mixed(bits + place).sum(1))


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift right as unsigned numbers do; torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
