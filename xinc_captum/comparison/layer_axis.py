"""Which axis of a layer holds the channels, read off the forward pass that a method runs anyway."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..hooks import ForwardFunc, LayerError, unit_axis


class LayerAxis:
    """The axis of the channels at one layer, and the places of its map.

    Args:
        model: the classifier, or any function around it.
        layer: a module of it.
        preprocess: what turns images in [0, 1] into the model's inputs.
        asked: the caller's ``unit_axis=``; None determines it.
    """

    def __init__(
        self, model: ForwardFunc, layer: nn.Module, preprocess: Callable[[Tensor], Tensor] | None, asked: int | None
    ) -> None:
        self.model, self.layer, self.asked, self._preprocess = model, layer, asked, preprocess
        self._shape: tuple[int, ...] = ()
        self._entered: tuple[int, ...] = ()

    @property
    def preprocess(self) -> Callable[[Tensor], Tensor] | None:
        """The preprocessing, which also notes the shape that it leaves."""
        if self._preprocess is None:
            return None
        preprocess = self._preprocess

        def noting(images: Tensor) -> Tensor:
            entering = preprocess(images)
            self._entered = tuple(entering.shape)
            return entering

        return noting

    @contextmanager
    def watching(self, images: Tensor) -> Iterator[None]:
        """Note the shape of the layer's activation inside the block."""
        if self._preprocess is None:
            self._entered = tuple(images.shape)

        def note(_m: nn.Module, _a: Any, output: Any) -> None:
            self._shape = tuple(output.shape) if isinstance(output, Tensor) else ()

        handle = self.layer.register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()

    def of(self, shape: tuple[int, ...]) -> int:
        """The axis of an activation of this shape.

        Raises:
            LayerError: it cannot be determined.
        """
        if len(shape) != 4:  # tokens and vectors are refused where maps are made of the answer
            return 1
        return unit_axis(shape, self.layer, self.model, entered=self._entered, asked=self.asked)

    @property
    def seen(self) -> int:
        """The axis in the activation that was noted last."""
        return self.of(self._shape)


def refuse_last(axis: int, name: str) -> None:
    """For methods of other packages that read axis 1 only.

    Raises:
        LayerError: the channels are on another axis.
    """
    if axis != 1:
        raise LayerError(
            f"the method {name!r} takes the channels from axis 1, and the layer has them on axis {axis}; use "
            "'Grad-CAM', or give a layer with maps (N, channels, h, w)."
        )
