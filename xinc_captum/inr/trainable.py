"""Whether a network can be trained as it is, said before the first step."""

import torch
from torch import nn


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that training will change.

    Raises:
        ValueError: none wants gradients, or they have no values, too few digits to be trained in, or NaN or infinite
            values.

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
    bad = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p.detach()).all())]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(
            f"{', '.join(map(repr, bad[:3]))}{more} of this {kind} hold NaN or infinite values, from which training "
            "cannot start; build it anew, or load weights without them."
        )
    return parameters
