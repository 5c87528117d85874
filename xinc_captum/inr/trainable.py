"""Checks of a network's parameters before it is trained or explained."""

from collections.abc import Collection

import torch
from torch import nn


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that training will change.

    Raises:
        ValueError: none wants gradients, or they have no values, NaN or infinite ones, or too few digits to be trained
            in.

    Example:
        >>> [p.shape for p in trainable(nn.Linear(2, 3))]
        [torch.Size([3, 2]), torch.Size([3])]
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    kind = type(model).__name__
    if not parameters:
        raise ValueError(f"no parameter of this {kind} wants a gradient; call requires_grad_() on those to train.")
    if any(p.is_meta for p in parameters):
        raise ValueError(f"this {kind} is on the meta device, where nothing has values; load it or build it anew.")
    if any(p.is_inference() for p in parameters):
        raise ValueError(f"this {kind} was made under torch.inference_mode(), so it has no gradients; make it outside.")
    if any(p.dtype == torch.float16 for p in parameters):
        # Adam divides by the root of a mean square plus 1e-8, both of which are 0 in these digits.
        raise ValueError(f"this {kind} is torch.float16, in which steps of Adam are NaN; fit it in float32.")
    check_finite(model)
    return parameters


def check_finite(model: nn.Module, without: Collection[nn.Parameter] = ()) -> None:
    """Check that the parameters of a model have finite values, with one transfer from its device.

    Args:
        model: any module.
        without: parameters that may have any values.

    Raises:
        ValueError: NaN or infinite values, or no values (the meta device); names the first parameter.

    Example:
        >>> check_finite(nn.Linear(2, 3))
    """
    skipped = {id(parameter) for parameter in without}
    named = {name: p for name, p in model.named_parameters() if id(p) not in skipped and p.is_floating_point()}
    kind = type(model).__name__
    if any(p.is_meta for p in named.values()):
        raise ValueError(f"this {kind} is on the meta device, where nothing has values; load it or build it anew.")
    if not named:
        return
    fine = torch.stack([p.detach().isfinite().all().to(next(iter(named.values())).device) for p in named.values()])
    bad = [name for name, ok in zip(named, fine.tolist(), strict=True) if not ok]
    if bad:
        raise ValueError(
            f"the parameter {bad[0]} of this {kind} holds NaN or infinite values ({len(bad)} of {len(named)} "
            "parameters do). Every result would be NaN too; load the model again, or train with a smaller lr."
        )
