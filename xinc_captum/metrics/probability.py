"""Probabilities of classes from a classifier's outputs: logits of a softmax, logits of sigmoids, or probabilities."""

import warnings
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..batch import tensor_named
from ..hooks import ForwardFunc, protect

Probability = Literal["auto", "softmax", "sigmoid", "identity", "none"]
Scores = Callable[[Tensor], Tensor] | Probability
PROBABILITIES: tuple[Probability, ...] = get_args(Probability)
SLACK = 1e-4  # by which probabilities of a row may miss a sum of 1: float32 sums of 20,000 classes miss it by 1e-6
WHERE = "(probability= of compare, counterfactual and zoo.Classifier, scores= of the functions in xinc_captum.metrics)"


def probabilities(outputs: Tensor, kind: Probability = "auto") -> Tensor:
    """Return each class's probability, in float32 or wider: (N, classes) outputs to (N, classes).

    Args:
        outputs: (N, classes), as the classifier returns them.
        kind: what the outputs are.

            - ``"softmax"``: logits of classes that exclude each other.
            - ``"sigmoid"``: logits of independent classes (multi-label), or one column, the logit of a single class.
              Target 0 is that class; its probability is sigmoid(logit).
            - ``"identity"``: probabilities already, as of a model that ends in a softmax or a sigmoid.
            - ``"none"``: no probabilities, as of a regression. The outputs are returned unchanged.
            - ``"auto"``: ``"identity"`` where no output is negative and each row sums to 1 (within 1e-4, or 4 eps of
              a narrower dtype); else ``"sigmoid"`` for one column and ``"softmax"`` for several. A warning names the
              cases that the values alone do not decide.

    Raises:
        ValueError: another shape, an unknown kind, or ``"identity"`` for outputs outside [0, 1].

    Example:
        >>> probabilities(torch.tensor([[3.0, 3.0]])), probabilities(torch.tensor([[0.9, 0.1]]))
        (tensor([[0.5000, 0.5000]]), tensor([[0.9000, 0.1000]]))
    """
    if outputs.dim() != 2:
        raise ValueError(f"outputs have shape {tuple(outputs.shape)}; expected (N, classes).")
    decided = probability_kind(outputs, kind)
    return in_range(as_probabilities(outputs, decided), decided)


def probability_kind(outputs: Tensor, kind: Probability = "auto", model: ForwardFunc | None = None) -> Probability:
    """Return the kind of a classifier's outputs, as defined by :func:`probabilities`; "auto" is never returned.

    Rows that are not finite are ignored.

    Args:
        outputs: (N, classes).
        kind: returned unchanged if it is not "auto".
        model: a function without arguments that computes outputs with gradients. It is called only if the values do not
            decide whether they are probabilities; they are if their last operation is a sigmoid.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> probability_kind(torch.tensor([[0.2, 0.8]])), probability_kind(torch.tensor([[2.0, -1.0]]))
        ('identity', 'softmax')
    """
    if kind not in PROBABILITIES:
        raise ValueError(f"{kind!r} is no kind of outputs; expected one of {', '.join(map(repr, PROBABILITIES))}.")
    if kind != "auto":
        return kind
    rows = outputs.detach()
    rows = rows[rows.isfinite().all(1)]
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if not rows.numel():
        return "sigmoid" if outputs.shape[1] == 1 else "softmax"
    slack = max(SLACK, 4 * torch.finfo(outputs.dtype).eps)
    low, high, miss = (float(v) for v in torch.stack([*rows.aminmax(), (rows.sum(1) - 1).abs().amax()]))
    inside = low >= 0 and high <= 1 + slack
    if inside and miss <= slack and outputs.shape[1] > 1:
        return "identity"
    if inside and _ends_in_sigmoid(outputs if model is None else model()):
        return "identity"
    decided: Probability = "sigmoid" if outputs.shape[1] == 1 else "softmax"
    if outputs.shape[1] == 1:
        warnings.warn(
            "The model has one output column, which is read as the logit of one class: its probability is the sigmoid. "
            "Give 'sigmoid' to confirm this, 'identity' where it is a probability already, or 'none' for a regression "
            f"{WHERE}.",
            stacklevel=3,
        )
    elif inside:
        warnings.warn(
            "All outputs of the model lie in [0, 1] and do not sum to 1. They are read as logits of a softmax. Give "
            "'identity' where they are probabilities of independent classes, or 'softmax' or 'sigmoid' to confirm "
            f"logits {WHERE}.",
            stacklevel=3,
        )
    return decided


def predict_classes(outputs: Tensor, like: Tensor | None = None) -> Tensor:
    """Return the class that is predicted, (...,) int64.

    For several columns it is the index of the largest. A single column has the classes 1 and 0; the class is 1 for a
    logit above 0, or for a value above 1/2 if all values lie in [0, 1].

    Args:
        outputs: (..., classes).
        like: outputs by whose values logits and probabilities are distinguished; None uses ``outputs``. Give the same
            for outputs that are compared.

    Example:
        >>> predict_classes(torch.tensor([[0.1, 2.0]])), predict_classes(torch.tensor([[-3.0], [0.2]]))
        (tensor([1]), tensor([0, 1]))
    """
    if outputs.shape[-1] != 1:
        return outputs.argmax(-1)
    values = outputs if like is None else like
    shares = bool(((values >= 0) & (values <= 1)).all())
    return (outputs[..., 0] > (0.5 if shares else 0.0)).long()


def as_probabilities(outputs: Tensor, kind: Probability) -> Tensor:
    """Return probabilities of outputs of a known kind, without reading values, so that nothing waits for the device."""
    wide = torch.promote_types(outputs.dtype, torch.float32)
    if kind == "softmax":
        return outputs.softmax(1, dtype=wide)
    return outputs.to(wide).sigmoid() if kind == "sigmoid" else outputs.to(wide)


def in_range(values: Tensor, kind: Probability) -> Tensor:
    """Return the values, checked if their kind is "identity".

    Raises:
        ValueError: ``kind`` is "identity" and a value lies outside [0, 1].
    """
    if kind == "identity" and values.numel():
        low, high = (float(end) for end in values.detach().nan_to_num(0.5).aminmax())
        if low < -SLACK or high > 1 + SLACK:
            raise ValueError(
                f"the model's outputs go from {low:.3g} to {high:.3g}; expected probabilities in [0, 1] ('identity'). "
                "Give 'softmax' or 'sigmoid' for logits, or 'none' for a regression."
            )
    return values


def class_outputs(forward_func: ForwardFunc, images: Tensor, batch_size: int = 32) -> Tensor:
    """Run a classifier without gradients and return its checked outputs, (N, classes).

    Raises:
        TypeError: the model returns no tensor.
        ValueError: the outputs are not (N, classes).
    """
    with protect(forward_func), torch.no_grad():
        return torch.cat([class_scores(forward_func(some.clone()), len(some)) for some in images.split(batch_size)])


def class_scores(output: object, rows: int) -> Tensor:
    """Return a classifier's output, checked to be one floating-point tensor (rows, classes).

    Raises:
        TypeError: it is not a tensor; the message shows a function around the model that selects one.
        ValueError: it has another shape.
    """
    if not isinstance(output, Tensor):
        what, access = tensor_named(output)
        raise TypeError(
            f"the model returned a {what}; expected a tensor of class scores, ({rows}, classes). Give a function "
            f"around the model: lambda images: model(images){access}."
        )
    if output.dim() == 2 and len(output) == rows and output.shape[1] and output.is_floating_point():
        return output
    hint = "For another output, give a function around the model: lambda images: model(images)[...]."
    if output.dim() == 4:
        hint = (
            "For the maps of a segmentation, give a function around the model that returns one score per class: their "
            "mean, lambda images: model(images).mean((2, 3)), or those of one pixel, model(images)[:, :, row, column]."
        )
    elif output.numel() == rows:
        hint = "For one score an image, keep its column: lambda images: model(images).reshape(-1, 1)."
    raise ValueError(
        f"the model returned {output.dtype} of shape {tuple(output.shape)} for {rows} image{'s' * (rows > 1)}; "
        f"expected floats, ({rows}, classes). {hint}"
    )


def with_gradients(forward_func: ForwardFunc, images: Tensor) -> Callable[[], Tensor | None]:
    """Return a function that computes the outputs of one image with a graph, for :func:`probability_kind`."""

    def model() -> Tensor | None:
        with protect(forward_func), torch.inference_mode(False), torch.enable_grad():
            try:
                output = forward_func(images[:1].clone().detach().requires_grad_())
            except RuntimeError:  # weights made in inference mode, custom functions without a derivative
                return None
            return output if isinstance(output, Tensor) else None

    return model


_SAME_VALUES = ("View", "Reshape", "Squeeze", "Unsqueeze", "Alias", "Clone", "ToCopy", "Transpose", "Permute", "Slice")


def _ends_in_sigmoid(outputs: Tensor | None) -> bool:
    """Return whether the last operation in the graph that changed values was a sigmoid."""
    node = None if outputs is None else outputs.grad_fn
    while node is not None and any(node.name().startswith(name) for name in _SAME_VALUES):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith(("Sigmoid", "Hardsigmoid"))
