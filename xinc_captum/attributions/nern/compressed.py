"""The second application: the NeRN itself pruned and rounded, and what is left in bytes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from .nern_file import sections
from .quantised import packed_integers, rounded

if TYPE_CHECKING:
    from .nern import NeRN


class Compressed(NamedTuple):
    """A NeRN with fewer and coarser weights.

    Attributes:
        nern: a copy with the pruned and rounded predictor, as floats.
        bytes: of a safetensors file with the kept integers, one bit a weight that says which are kept, scales, biases,
            the permutation, and what is kept of the target.
        relative_error: ‖Ŵ − W‖ / ‖W‖ of the generated weights.
    """

    nern: NeRN
    bytes: int
    relative_error: float


def compressed(nern: NeRN, *, keep: float = 1.0, bits: int = 8) -> Compressed:
    r"""Drop the smallest weights of the predictor, then round the others; biases stay floats.

    .. math:: \theta_{ij} \to s_i\, \mathrm{round}(\theta_{ij} / s_i)\, [\,|\theta_{ij}| \ge t\,]

    Symbols: t the magnitude that the share ``keep`` of all weight matrices together reaches, s_i a scale for each
    neuron. Our reading of the paper's second application, of which no code was released; nothing is fitted again.

    Args:
        nern: a copy is changed.
        keep: share of the predictor's weights that stays, in (0, 1].
        bits: 2 to 8.

    Raises:
        ValueError: a share or bits out of range.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> nern = NeRN(torch.nn.Conv2d(3, 4, 3))
        >>> compressed(nern, bits=8).bytes < nern.size_report().total
        True

    Source: Ashkenazi et al. (ICLR 2023), applications, as we read them; Han et al. (NeurIPS 2015) for the threshold.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}; wanted a share in (0, 1].")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; wanted 2 to 8.")
    small = copy.deepcopy(nern)
    held = sections(small)
    tensors = {f"{part}.{name}": value for part in ("order", "kept") for name, value in held[part].items()}
    matrices = {name: p for name, p in small.predictor.named_parameters() if p.dim() == 2}
    sizes = torch.cat([p.detach().abs().flatten().float() for p in matrices.values()]).sort().values
    threshold = sizes[len(sizes) - max(1, round(keep * len(sizes)))]
    with torch.no_grad():
        for name, p in small.predictor.named_parameters():
            if name not in matrices:
                tensors[name] = _plain(p)
                continue
            stays = p.abs().float() >= threshold
            scale, whole = rounded(torch.where(stays, p, torch.zeros_like(p)), bits)
            p.copy_((whole * scale).to(p))
            tensors[f"scale.{name}"] = _plain(scale.flatten().float())
            tensors[f"weight.{name}"] = packed_integers(whole[stays], bits)
            if keep < 1:
                tensors[f"stays.{name}"] = packed_integers(stays.flatten(), 1)
    return Compressed(small, len(save(tensors)), small.relative_error())


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()
