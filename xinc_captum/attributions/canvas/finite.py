"""A look at the numbers before anything is drawn from them."""

import torch
from torch import Tensor, nn

from ...batch import Batch


def check_finite(batch: Batch, shares: Tensor, layer: nn.Module) -> None:
    """Refuse what would only draw blank pictures.

    Raises:
        ValueError: NaN or infinity in inputs, weights or contributions.
    """
    for i, tensor in enumerate(batch.inputs):
        bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise ValueError(f"input {i} holds {bad} NaN or infinite values; replace them before drawing a canvas.")
    for name, weight in layer.named_parameters():
        if not bool(torch.isfinite(weight.detach()).all()):
            raise ValueError(f"the layer's parameter {name!r} holds NaN or infinite values; was the training unstable?")
    if not bool(torch.isfinite(shares).all()):
        raise ValueError(
            "the contributions of the first pixel are NaN or infinite, although the inputs are finite; look for NaN or "
            "infinite weights between the layer and the output."
        )
