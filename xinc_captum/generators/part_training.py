"""Train a head on the few pictures that a person labelled."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..progress import progress
from .part_heads import FewShotHead, ProjectionHead


def fit_head(
    head: FewShotHead | ProjectionHead,
    maps: Sequence[Tensor],
    labels: Tensor,
    *,
    generator: torch.Generator,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
    show_progress: bool = False,
) -> Tensor:
    """Cross-entropy by Adam, one picture a step, a tenth of the rate after every 50 epochs: the paper's recipe.

    Args:
        head: trained in place.
        maps: of :func:`pictures_and_features`, (n, channels, h, w) each, of the labelled pictures.
        labels: (n, H, W), whole numbers below ``head.parts``; negative ones teach nothing, so a few strokes of a brush
            will do.
        generator: of the order of the pictures.
        epochs: over all pictures.
        learning_rate: Adam's.
        weight_decay: Adam's.
        show_progress: a bar on standard error.

    Returns:
        (epochs,), the mean loss of each.

    Raises:
        ValueError: labels of another shape, of a part the head does not have, or a part that is nowhere labelled.

    Example:
        >>> head, maps = ProjectionHead([1], 2, width=4), [torch.arange(16.0).view(1, 1, 4, 4) - 8]
        >>> losses = fit_head(head, maps, (maps[0][:, 0] > 0).long(), generator=torch.Generator(), epochs=30)
        >>> bool(losses[-1] < losses[0])
        True

    Source: Wehrheim et al., "Linking in Style" (2024), its released code.
    """
    _check_labels(labels, len(maps[0]), head.parts)
    size = (int(labels.shape[1]), int(labels.shape[2]))
    held = [own.detach() for own in maps]
    optimizer = torch.optim.Adam(head.parameters(), learning_rate, weight_decay=weight_decay)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, 50, 0.1)
    losses = []
    with torch.enable_grad():
        for _ in progress(range(epochs), "head", show=show_progress):
            total = torch.zeros((), device=labels.device)
            for row in torch.randperm(len(labels), generator=generator, device=generator.device).tolist():
                wanted = labels[row : row + 1].long()
                logits = head([own[row : row + 1] for own in held], size)
                # an unlabelled picture would make the mean over nothing
                loss = F.cross_entropy(logits, wanted.clamp_min(-1), ignore_index=-1, reduction="sum")
                loss = loss / (wanted >= 0).sum().clamp_min(1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach() / len(labels)
            decay.step()
            losses.append(total)
    optimizer.zero_grad()
    return torch.stack(losses).cpu() if losses else torch.zeros(0)


def _check_labels(labels: Tensor, rows: int, parts: int) -> None:
    if labels.dim() != 3 or len(labels) != rows or labels.is_floating_point():
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} for maps of {rows} pictures; wanted whole "
            f"numbers ({rows}, H, W)."
        )
    present = labels[labels >= 0].unique().tolist()
    missing = sorted(set(range(parts)) - set(present))
    if missing or max(present) >= parts:
        raise ValueError(
            f"the labels name parts {present}; the head has parts 0 to {parts - 1}, and wants a few pixels of each."
        )
