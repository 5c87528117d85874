"""Fields that are asked at samples along rays, seen one rendered pixel at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from ....batch import Batch
from ....hooks import ForwardFunc, LayerError
from ....units import Selector
from .tail import Tail

Renderer = Callable[..., Tensor]


def rendered(field: ForwardFunc, render: Renderer) -> Callable[..., Tensor]:
    """From samples to pixels: the field at all samples as rows of their own, then ``render`` of what it answered.

    Args:
        field: takes (rays · samples, ...) and answers tensors with as many rows.
        render: takes these as (rays, samples, ...), then the inputs as they came; answers (rays,) or (rays, channels).

    Raises:
        ValueError: inputs without samples, a field that answers other rows, or a renderer that keeps the samples.

    Example:
        >>> mean = rendered(torch.nn.Linear(3, 1), lambda answers, points: answers.mean(1))
        >>> mean(torch.rand(5, 7, 3)).shape
        torch.Size([5, 1])
    """

    def pixels(*values: Any) -> Tensor:
        shape = tuple(values[0].shape)
        if len(shape) < 2:
            raise ValueError(
                f"an input has shape {shape}; with render= wanted (rays, samples, ...), a ray's samples in its row."
            )

        def flat(value: Any) -> Any:
            return value.flatten(0, 1) if isinstance(value, Tensor) and tuple(value.shape[:2]) == shape[:2] else value

        def folded(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if value.dim() == 0 or value.shape[0] != shape[0] * shape[1]:
                raise ValueError(
                    f"the field answered shape {tuple(value.shape)} for {shape[0]} rays of {shape[1]} samples; wanted "
                    f"{shape[0] * shape[1]} rows, one for each sample."
                )
            return value.unflatten(0, shape[:2])

        answer = render(tree_map(folded, field(*map(flat, values))), *values)
        if isinstance(answer, Tensor) and answer.dim() > 2:
            raise ValueError(
                f"render answered shape {tuple(answer.shape)} for {shape[0]} rays of {shape[1]} samples; wanted "
                "(rays,) or (rays, channels): weigh and sum the samples."
            )
        return answer

    return pixels


@dataclass(frozen=True)
class RayTail(Tail):
    """A :class:`Tail` whose rows are rays: (rays · samples, units, ...) is shown as (rays, units, ..., samples).

    A unit's part of a pixel is then the sum over the ray's samples, as over the places of a convolution.
    """

    def per_row(self, activation: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Tail.per_row`.

        Raises:
            LayerError: the layer's rows are no samples of the rays.
        """
        samples = batch.inputs[0].shape[1]
        if activation.dim() < 2 or activation.shape[0] != batch.rows * samples:
            raise LayerError(
                f"layer {self.name} hands over shape {tuple(activation.shape)} for {batch.rows} rays of {samples} "
                f"samples; wanted (rays · samples, units, ...). Choose a layer of the field, in front of the renderer."
            )
        second = self._units_second(activation, ())
        by_ray: Tensor = second.unflatten(0, (batch.rows, samples)).movedim(1, -1)
        return by_ray

    def handed_on(self, activation: Tensor) -> Tensor:
        """Samples as rows again, in memory of their own, so that the model may write into it."""
        samples: Tensor = activation.movedim(-1, 1).flatten(0, 1).clone()
        return super().handed_on(samples)

    def baselines(self, given: Tensor, like: Tensor) -> Tensor:
        """See :meth:`Tail.baselines`: given as (rays, units, ..., samples)."""
        return given

    def selector(self, given: Selector, like: Tensor) -> Selector:
        """See :meth:`Tail.selector`: tuples and functions refer to (rays, units, ..., samples)."""
        return given
