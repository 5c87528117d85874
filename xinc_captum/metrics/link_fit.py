"""How much of the latents a link explains: of all, and of what varies within classes."""

import torch
from torch import Tensor


def r2(truth: Tensor, predicted: Tensor) -> Tensor:
    r"""The share of variance explained, all columns together.

    .. math:: R^2 = 1 - \frac{\sum_i \lVert w_i - \hat w_i \rVert^2}{\sum_i \lVert w_i - \bar w \rVert^2}

    Args:
        truth: w, (n, columns); w̄ is its mean.
        predicted: ŵ, likewise.

    Returns:
        a scalar, float64; below 0 where the mean would do better, nan where nothing varies.

    Raises:
        ValueError: shapes differ or are not (n, columns).

    Example:
        >>> w = torch.tensor([[0.0], [2.0]])
        >>> float(r2(w, torch.tensor([[0.0], [1.0]])))
        0.5
    """
    error, around = (rows.sum() for rows in squares(truth, predicted))
    return 1 - error / around


def r2_within(truth: Tensor, predicted: Tensor, classes: Tensor) -> Tensor:
    r"""The share explained of what varies *within* classes: the honest figure where classes matter at all.

    .. math:: R^2_w = 1 - \frac{\sum_i \lVert w_i - \hat w_i \rVert^2}{\sum_i \lVert w_i - \bar w_{c(i)} \rVert^2}

    A link that knows nothing but the class, and answers its mean, reaches class agreement of 1.00 and R² of .7 to .8
    on digits; here it has 0. The means are those of the pairs given, so that the yardstick is as hard as can be.

    Args:
        truth: w, (n, columns).
        predicted: ŵ, likewise.
        classes: (n,).

    Returns:
        a scalar, float64; nan where nothing varies within classes.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> w = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> float(r2_within(w, torch.tensor([[1.0], [1.0], [11.0], [11.0]]), torch.tensor([0, 0, 1, 1])))
        0.0
    """
    error, around = (rows.sum() for rows in squares(truth, predicted, classes))
    return 1 - error / around


def squares(truth: Tensor, predicted: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Row by row, the squared error and the squared distance to the mean (of the row's class): (n,) each, float64."""
    if truth.shape != predicted.shape or truth.dim() != 2:
        raise ValueError(
            f"got shapes {tuple(truth.shape)} and {tuple(predicted.shape)}; wanted the same (n, columns) twice."
        )
    device = "cpu" if truth.device.type == "mps" else truth.device
    w, fitted = (side.detach().to(device).to(torch.float64) for side in (truth, predicted))
    centred = w - (w.mean(0) if classes is None else class_means(w, classes))
    # The mean of equal numbers is rounded: what is left of them is no variation.
    centred = torch.where(centred.abs() > 1e-12 * w.abs().amax(0), centred, 0.0) if len(w) else centred
    return (w - fitted).square().sum(1), centred.square().sum(1)


def class_means(rows: Tensor, classes: Tensor) -> Tensor:
    """Each row's class mean, (n, columns).

    Raises:
        ValueError: not one class a row.

    Example:
        >>> class_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([7, 7, 2]))
        tensor([[2.],
                [2.],
                [5.]])
    """
    if classes.shape != rows.shape[:1]:
        raise ValueError(f"got classes of shape {tuple(classes.shape)} for {len(rows)} rows; wanted one a row.")
    found, where, counts = classes.to(rows.device).unique(return_inverse=True, return_counts=True)
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    sums = wide.new_zeros(len(found), rows.shape[1]).index_add_(0, where, wide)
    means: Tensor = (sums / counts[:, None]).to(rows.dtype)
    return means[where]
