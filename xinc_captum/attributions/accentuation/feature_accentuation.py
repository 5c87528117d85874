"""Captum classes of feature accentuation: raise a feature in an image, and show where it responds."""

from collections.abc import Callable
from typing import Any, Unpack

from captum.robust import Perturbation
from torch import Tensor, nn

from ..._compat import GradientAttribution, NeuronAttribution
from ...batch import OutputFn, python_index
from ...hooks import ForwardFunc, check_preprocess, find_layer
from ..base import captum_method
from .accentuate import accentuate, match_container
from .activations import ImageModel
from .objectives import OutputFeature, UnitFeature
from .problem import Images
from .result import Accentuation
from .settings import Options
from .transforms import Size

Preprocess = Callable[[Tensor], Tensor]


def _check_size(size: int | Size | None) -> Size | None:
    """Check a size; return height and width."""
    size = python_index(size)
    both = size if isinstance(size, tuple | list | None) else (size, size)
    if both is not None and (len(both) != 2 or not all(isinstance(side, int) and side > 0 for side in both)):
        raise ValueError(
            f"size is {size!r}; expected the height and width of the model's input, such as 224 or (224, 160)."
        )
    return both if both is None else (both[0], both[1])


class FeatureAccentuation(GradientAttribution, Perturbation):  # type: ignore[misc]
    r"""Change an image slightly so that one output rises; the change shows what the output responds to, and where.

    .. math:: x^* = \arg\max_x \; \mathrm{E}_\tau\, f(\tau(x)) - w B\, \mathrm{E}_\tau\, d(\tau(x), \tau(x_0))

    Symbols: x the image, which starts at the input x_0; f the output; τ random augmentations, the same for x and
    x_0; d a distance between activations; w its weight; B the ratio of the gradients of f and d, measured near x_0.

    Args:
        forward_func: the model, or any function around it.
        preprocess: the model's own normalisation of images in [0, 1]; None where ``forward_func`` includes it.
        size: height and width of the model's input, where images have another size; None takes the images' own.
        output_fn: picks the tensor to explain out of a dict or tuple output.
        layer_to_grid: rearranges activations to (rows, channels, h, w), for objectives on transformer layers.
        unit_axis: axis of the units in the layers that an objective reads, for example -1 for (rows, h, w, channels)
            or (rows, tokens, channels). None determines it for each layer, see :class:`NeuronFeatureAccentuation`.

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
        self.model = ImageModel(
            forward_func, preprocess, output_fn, layer_to_grid, unit_axis=unit_axis, size=_check_size(size)
        )

    @captum_method
    def attribute(
        self, inputs: Images, target: Any = None, additional_forward_args: Any = None, **options: Unpack[Options]
    ) -> Images:
        """Return where the output is sensitive to the image: Σ of |∂f/∂x| over every ``mask_every``-th step.

        Args:
            inputs: (N, C, H, W) in [0, 1].
            target: as for :meth:`accentuate`.
            additional_forward_args: passed on to the model.
            **options: as for :meth:`accentuate`.
        """
        return match_container(inputs, self.accentuate(inputs, target, additional_forward_args, **options).masks)

    def perturb(
        self, inputs: Images, target: Any = None, additional_forward_args: Any = None, **options: Unpack[Options]
    ) -> Images:
        """Return the accentuated images, (N, C, H, W) in [0, 1], as ``captum.robust`` expects."""
        return match_container(inputs, self.accentuate(inputs, target, additional_forward_args, **options).images)

    def accentuate(
        self,
        inputs: Images | None,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        shape: tuple[int, ...] | None = None,
        **options: Unpack[Options],
    ) -> Accentuation:
        """Return images, masks, and the record of the optimization.

        Args:
            inputs: (N, C, H, W) in [0, 1]; None starts from noise, which is ordinary feature visualization.
            target: a Captum target (a list or 1-D tensor holds one for each row), an objective of
                :mod:`~xinc_captum.attributions.accentuation.objectives`,
                a function of the layers, "layer:unit", or a Lucent objective.
            additional_forward_args: passed on to the model; a tensor with one entry for each sample is cut
                and repeated along with the inputs, any other is passed whole
                (:func:`~xinc_captum.batch.settle_arguments` decides).
            shape: (N, C, H, W) of the images where ``inputs`` is None.
            **options: n_steps, lr, regularizer, dose, seed, ... (:class:`.Settings` describes each).
        """
        return accentuate(self.model, OutputFeature(target), inputs, additional_forward_args, shape, options)


class NeuronFeatureAccentuation(NeuronAttribution, GradientAttribution, Perturbation):  # type: ignore[misc]
    r"""Raise a unit, channel, direction or position of a layer by a small change of an image.

    .. math:: x^* = \arg\max_x \; \mathrm{E}_\tau\, u(a(\tau(x))) - w B\, \mathrm{E}_\tau\, d(\tau(x), \tau(x_0))

    Symbols: a the layer's activation, u the unit in it; the others as in :class:`FeatureAccentuation`.

    Args:
        forward_func: the model, or any function around it.
        layer: a module or dotted name.
        device_ids: devices of a DataParallel model when ``forward_func`` is not the DataParallel object itself.
        preprocess: the model's own normalisation of images in [0, 1]; None where ``forward_func`` includes it.
        size: height and width of the model's input, where images have another size; None takes the images' own.
        layer_to_grid: rearranges the activation to (rows, channels, h, w); vision transformers need
            :func:`xinc_captum.layer_to_grid`.
        unit_axis: axis of the activation's units, to which an int, a direction or a position refers, for example -1 for
            (rows, h, w, channels) or (rows, tokens, channels). None determines it from the layer's class; for four
            axes also from the input's height and width and the modules inside the layer. Tuples and functions refer
            to the layer's own axes.

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
        module = find_layer(forward_func, layer)
        NeuronAttribution.__init__(self, forward_func, module, device_ids)
        GradientAttribution.__init__(self, forward_func)
        check_preprocess(forward_func, preprocess)
        self.model = ImageModel(
            forward_func, preprocess, layer_to_grid=layer_to_grid, unit_axis=unit_axis, size=_check_size(size)
        )

    @captum_method
    def attribute(
        self,
        inputs: Images,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        **options: Unpack[Options],
    ) -> Images:
        """Return where the unit is sensitive to the image: Σ of |∂u/∂x| over every ``mask_every``-th step."""
        return match_container(
            inputs, self.accentuate(inputs, neuron_selector, additional_forward_args, **options).masks
        )

    def perturb(
        self,
        inputs: Images,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        **options: Unpack[Options],
    ) -> Images:
        """Return the accentuated images, (N, C, H, W) in [0, 1]."""
        return match_container(
            inputs, self.accentuate(inputs, neuron_selector, additional_forward_args, **options).images
        )

    def accentuate(
        self,
        inputs: Images | None,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        *,
        shape: tuple[int, ...] | None = None,
        **options: Unpack[Options],
    ) -> Accentuation:
        """Return images, masks, and the record of the optimization.

        Args:
            inputs: (N, C, H, W) in [0, 1]; None starts from noise, which is ordinary feature visualization.
            neuron_selector: an int is a channel's mean over positions (of a flat layer, the unit); a tuple indexes
                the dims after the rows, slices are summed, as in Captum; a function maps the activation to one number
                for each row; a float tensor (channels,) is a direction; a list holds one of these for each row.
            additional_forward_args: passed on to the model; a tensor with one entry for each sample is cut
                and repeated along with the inputs, any other is passed whole
                (:func:`~xinc_captum.batch.settle_arguments` decides).
            shape: (N, C, H, W) of the images where ``inputs`` is None.
            **options: n_steps, lr, regularizer, dose, seed, ... (:class:`.Settings` describes each).
        """
        feature = UnitFeature(self.layer, neuron_selector)
        return accentuate(self.model, feature, inputs, additional_forward_args, shape, options)
