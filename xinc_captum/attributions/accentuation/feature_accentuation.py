"""Feature accentuation: what a feature sees in this very image, and where."""

from collections.abc import Callable
from typing import Any, Unpack

from captum.robust import Perturbation
from torch import Tensor, nn

from ..._compat import GradientAttribution, NeuronAttribution
from ...batch import OutputFn
from ...hooks import ForwardFunc, check_preprocess, find_layer
from ...selectors import python_index
from ..base import captum_method
from .accentuate import accentuated, echoed
from .activations import ImageModel
from .objectives import Feature, OutputFeature, UnitFeature
from .result import Accentuation
from .settings import Options
from .transforms import Size

Images = Tensor | tuple[Tensor, ...]
Preprocess = Callable[[Tensor], Tensor]


def _size(size: int | Size | None) -> Size | None:
    """Height and width, checked."""
    size = python_index(size)
    both = size if isinstance(size, tuple | list | None) else (size, size)
    if both is not None and (len(both) != 2 or not all(isinstance(side, int) and side > 0 for side in both)):
        raise ValueError(
            f"size is {size!r}; expected the height and width of the model's input, such as 224 or (224, 160)."
        )
    return both if both is None else (both[0], both[1])


class FeatureAccentuation(GradientAttribution, Perturbation):  # type: ignore[misc]
    r"""Raises one output from an image that stays itself, and shows what the output wants there, and where.

    .. math:: x^* = \arg\max_x \; \mathrm{E}_\tau\, f(\tau(x)) - w B\, \mathrm{E}_\tau\, d(\tau(x), \tau(x_0))

    Symbols: x the image, which starts at the given one, x_0; f the output; τ random views, the same for both; d a
    distance between activations; w its weight, B the balance measured at the start.

    Args:
        forward_func: the model, or any function around it.
        preprocess: the model's own normalisation of images in [0, 1]; None where ``forward_func`` holds it.
        size: height and width of the model's input where images are larger; None takes the images' own.
        output_fn: picks the tensor to explain out of a dict or tuple output.
        layer_to_grid: rearranges activations to (rows, channels, h, w), for objectives on transformer layers.
        unit_axis: which axis of the layers that an objective reads holds the units, for example -1 for (rows, h, w,
            channels) or (rows, tokens, channels). None determines it for each layer, see
            :class:`NeuronFeatureAccentuation`.

    Raises:
        ValueError: images outside [0, 1] or with NaN, an impossible target or dose, an output that does not respond.
        LayerError: a layer is not in the model, never runs, or runs twice.

    Example:
        >>> layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 26 * 26, 5)
        >>> net = torch.nn.Sequential(*layers)
        >>> accentuation = FeatureAccentuation(net)
        >>> result = accentuation.accentuate(torch.rand(2, 3, 28, 28), target=[1, 4], n_steps=3)
        >>> result.images.shape, result.masks.shape
        (torch.Size([2, 3, 28, 28]), torch.Size([2, 3, 28, 28]))

    Source: Hamblin et al., "Feature accentuation: revealing 'what' features respond to in natural images"
    (arXiv 2402.10039).
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        preprocess: Preprocess | None = None,
        size: int | Size | None = None,
        output_fn: OutputFn | None = None,
        layer_to_grid: Callable[[Tensor], Tensor] | None = None,
        unit_axis: int | None = None,
    ) -> None:
        GradientAttribution.__init__(self, forward_func)
        check_preprocess(forward_func, preprocess)
        self.model = ImageModel(forward_func, preprocess, output_fn, layer_to_grid, unit_axis=unit_axis)
        self.size = _size(size)

    @captum_method
    def attribute(
        self, inputs: Images, target: Any = None, additional_forward_args: Any = None, **options: Unpack[Options]
    ) -> Images:
        """Where the output felt the image on its way: Σ of |∂f/∂x| over every ``mask_every``-th step, like the inputs.

        Args:
            inputs: (N, C, H, W) in [0, 1].
            target: as for :meth:`accentuate`.
            additional_forward_args: passed on to the model.
            **options: as for :meth:`accentuate`.
        """
        return echoed(inputs, self.accentuate(inputs, target, additional_forward_args, **options).masks)

    def perturb(
        self, inputs: Images, target: Any = None, additional_forward_args: Any = None, **options: Unpack[Options]
    ) -> Images:
        """The accentuated images, (N, C, H, W) in [0, 1], for ``captum.robust`` and everyone else."""
        return echoed(inputs, self.accentuate(inputs, target, additional_forward_args, **options).images)

    def accentuate(
        self,
        inputs: Images | None,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        shape: tuple[int, ...] | None = None,
        **options: Unpack[Options],
    ) -> Accentuation:
        """Images, masks and how they came about.

        Args:
            inputs: (N, C, H, W) in [0, 1]; None starts from noise, which is ordinary feature visualisation.
            target: a Captum target (a list or 1-D tensor holds one a row), an objective of
                :mod:`~xinc_captum.attributions.accentuation.objectives`,
                a function of the layers, "layer:unit", or a Lucent objective.
            additional_forward_args: passed on to the model; a tensor with one entry for each sample is cut
                and repeated along with the inputs, any other is passed whole
                (:func:`~xinc_captum.batch.settle_arguments` decides).
            shape: (N, C, H, W) of the pictures where ``inputs`` is None.
            **options: n_steps, lr, regularizer, dose, seed, … (:class:`.Settings` explains each).
        """
        return accentuated(
            self.model, self._feature(target), inputs, additional_forward_args, self.size, shape, options
        )

    def _feature(self, target: Any) -> Feature:
        return OutputFeature(target)


class NeuronFeatureAccentuation(NeuronAttribution, GradientAttribution, Perturbation):  # type: ignore[misc]
    r"""Raises a unit, channel, direction or position of a layer from an image that stays itself.

    .. math:: x^* = \arg\max_x \; \mathrm{E}_\tau\, u(a(\tau(x))) - w B\, \mathrm{E}_\tau\, d(\tau(x), \tau(x_0))

    Symbols: a the layer's activation, u the unit in it; the others as in :class:`FeatureAccentuation`.

    Args:
        forward_func: the model, or any function around it.
        layer: a module or dotted name.
        device_ids: devices of a DataParallel model when ``forward_func`` is not the DataParallel object itself.
        preprocess: the model's own normalisation of images in [0, 1]; None where ``forward_func`` holds it.
        size: height and width of the model's input where images are larger; None takes the images' own.
        layer_to_grid: rearranges the activation to (rows, channels, h, w); vision transformers need
            :func:`xinc_captum.layer_to_grid`.
        unit_axis: which axis of the activation holds the units that an int, a direction or a position refers to, for
            example -1 for (rows, h, w, channels) or (rows, tokens, channels). None determines it: from the layer's
            class; for four axes also from the input's height and width and the modules inside the layer. Tuples and
            functions refer to the layer's own axes.

    Raises:
        ValueError: images outside [0, 1] or with NaN, an impossible dose, a unit that does not respond.
        LayerError: the layer is not in the model, never runs, or runs twice, or which axis holds its units cannot be
            determined.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> accentuation = NeuronFeatureAccentuation(net, "1")
        >>> accentuation.attribute(torch.rand(2, 3, 28, 28), neuron_selector=5, n_steps=3).shape
        torch.Size([2, 3, 28, 28])

    Source: as :class:`FeatureAccentuation`.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | str,
        device_ids: list[int] | None = None,
        *,
        preprocess: Preprocess | None = None,
        size: int | Size | None = None,
        layer_to_grid: Callable[[Tensor], Tensor] | None = None,
        unit_axis: int | None = None,
    ) -> None:
        found = find_layer(forward_func, layer)
        NeuronAttribution.__init__(self, forward_func, found, device_ids)
        GradientAttribution.__init__(self, forward_func)
        check_preprocess(forward_func, preprocess)
        self.model = ImageModel(forward_func, preprocess, None, layer_to_grid, unit_axis=unit_axis)
        self.size = _size(size)

    @captum_method
    def attribute(
        self,
        inputs: Images,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        **options: Unpack[Options],
    ) -> Images:
        """Where the unit felt the image on its way: Σ of |∂u/∂x| over every ``mask_every``-th step, like the inputs."""
        return echoed(inputs, self.accentuate(inputs, neuron_selector, additional_forward_args, **options).masks)

    def perturb(
        self,
        inputs: Images,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        **options: Unpack[Options],
    ) -> Images:
        """The accentuated images, (N, C, H, W) in [0, 1]."""
        return echoed(inputs, self.accentuate(inputs, neuron_selector, additional_forward_args, **options).images)

    def accentuate(
        self,
        inputs: Images | None,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        *,
        shape: tuple[int, ...] | None = None,
        **options: Unpack[Options],
    ) -> Accentuation:
        """Images, masks and how they came about.

        Args:
            inputs: (N, C, H, W) in [0, 1]; None starts from noise, which is ordinary feature visualisation.
            neuron_selector: an int is a channel's mean over positions (of a flat layer, the unit); a tuple indexes
                the dims after the rows, slices are summed, as in Captum; a function takes the activation to one
                number a row; a float tensor (channels,) is a direction; a list holds one of these a row.
            additional_forward_args: passed on to the model; a tensor with one entry for each sample is cut
                and repeated along with the inputs, any other is passed whole
                (:func:`~xinc_captum.batch.settle_arguments` decides).
            shape: (N, C, H, W) of the pictures where ``inputs`` is None.
            **options: n_steps, lr, regularizer, dose, seed, … (:class:`.Settings` explains each).
        """
        feature = UnitFeature(self.layer, neuron_selector)
        return accentuated(self.model, feature, inputs, additional_forward_args, self.size, shape, options)
