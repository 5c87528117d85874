"""Heads that segment parts of generated images by the generator's features, fitted to few labelled images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..hooks import exclusive
from ..progress import progress
from .features import enlarge, stack_maps


class FewShotHead(nn.Module):
    r"""The paper's head: dilated 3×3 convolutions on all features, concatenated at one size.

    .. math:: \mathrm{logits} = C_L \circ \mathrm{lrelu} \circ C_{L-1} \circ \dots \circ \mathrm{lrelu} \circ
              C_1\bigl([\uparrow f_1, \dots, \uparrow f_k]\bigr)

    Symbols: C the convolutions, f the features, ↑ nearest upsampling. The first convolution has nearly all weights and
    takes nearly all time; :class:`ProjectionHead` avoids it.

    Args:
        channels: of each feature map.
        parts: number of parts.
        widths: of the inner convolutions.
        dilations: one more than widths. The paper's medium head: 1, 2, 4, 1, 2, 4, 1; large: 1, 2, 4, 8, 1, 2, 4, 8, 1.
        seed: of the first weights.

    Raises:
        ValueError: numbers of widths and dilations that do not fit, no channels, or fewer than two parts.

    Example:
        >>> head = FewShotHead([4, 2], parts=3, widths=(8,), dilations=(1, 2))
        >>> head([torch.zeros(1, 4, 4, 4), torch.zeros(1, 2, 8, 8)], (8, 8)).shape
        torch.Size([1, 3, 8, 8])

    Source: Tritrong et al., "Repurposing GANs for One-shot Semantic Part Segmentation" (CVPR 2021), as used by
    Wehrheim et al., "Linking in Style" (2024).
    """

    def __init__(
        self,
        channels: Sequence[int],
        parts: int,
        *,
        widths: Sequence[int] = (128, 64, 64, 32),
        dilations: Sequence[int] = (1, 2, 1, 2, 1),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(channels, parts)
        if len(dilations) != len(widths) + 1:
            raise ValueError(
                f"there are {len(widths)} widths and {len(dilations)} dilations; expected one dilation more, for the "
                "convolution to the parts."
            )
        self.channels, self.parts = tuple(channels), parts
        sizes = [sum(channels), *widths, parts]
        layers: list[nn.Module] = []
        with exclusive(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for in_channels, out_channels, dilation in zip(sizes, sizes[1:], dilations, strict=False):
                layers += [_convolution(in_channels, out_channels, dilation), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def project(self, index: int, feature: Tensor) -> Tensor:
        """Return a copy of map ``index``, the input of :meth:`logits`."""
        check_map(index, feature, self.channels)
        return feature.clone()

    def logits(self, projected: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits (n, parts, H, W) of projected maps."""
        logits: Tensor = self.layers(stack_maps(projected, size))
        return logits

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits (n, parts, H, W) of maps (n, channels, h, w); other channels raise a ValueError."""
        check_maps(maps, self.channels)
        return self.logits(maps, size)


class ProjectionHead(nn.Module):
    r"""A cheaper head: each feature map is projected at its own resolution, then summed at the image's.

    .. math:: \mathrm{logits} = C\Bigl(\mathrm{lrelu}\bigl(\Sigma_i \uparrow P_i f_i\bigr)\Bigr)

    Symbols: P 1×1 convolutions to ``width`` channels, ↑ nearest upsampling, C a stack of dilated 3×3 convolutions. A
    1×1 convolution and nearest upsampling commute, so no tensor of size channels × H × W is needed.

    Args:
        channels: of each feature map.
        parts: number of parts.
        width: of the projections and the inner convolutions.
        dilations: of the 3×3 convolutions; the last one outputs the parts.
        seed: of the first weights.

    Raises:
        ValueError: no channels, no dilations, or fewer than two parts.

    Example:
        >>> head = ProjectionHead([4, 2], parts=3, width=8)
        >>> head([torch.zeros(1, 4, 4, 4), torch.zeros(1, 2, 8, 8)], (8, 8)).shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(
        self,
        channels: Sequence[int],
        parts: int,
        *,
        width: int = 32,
        dilations: Sequence[int] = (1, 2),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(channels, parts)
        if not dilations:
            raise ValueError("dilations is empty; expected at least one, for the convolution to the parts.")
        self.channels, self.parts = tuple(channels), parts
        widths = [width] * len(dilations) + [parts]
        layers: list[nn.Module] = []
        with exclusive(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projections = nn.ModuleList(nn.Conv2d(in_width, width, 1) for in_width in channels)
            for in_channels, out_channels, dilation in zip(widths, widths[1:], dilations, strict=False):
                layers += [nn.LeakyReLU(0.2), _convolution(in_channels, out_channels, dilation)]
        self.layers = nn.Sequential(*layers)

    def project(self, index: int, feature: Tensor) -> Tensor:
        """Return map ``index`` projected to ``width`` channels, the input of :meth:`logits`."""
        check_map(index, feature, self.channels)
        projected: Tensor = self.projections[index](feature)
        return projected

    def logits(self, projected: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits (n, parts, H, W) of projected maps."""
        logits: Tensor = self.layers(torch.stack([enlarge(feature, size) for feature in projected]).sum(0))
        return logits

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits (n, parts, H, W) of maps (n, channels, h, w); other channels raise a ValueError."""
        check_maps(maps, self.channels)
        return self.logits([self.project(index, feature) for index, feature in enumerate(maps)], size)


def _convolution(in_channels: int, out_channels: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)


def _check(channels: Sequence[int], parts: int) -> None:
    if not channels or min(channels) < 1 or parts < 2:
        raise ValueError(
            f"channels are {tuple(channels)} and parts {parts}; expected the channels of at least one map, and at "
            "least two parts (one may be the background)."
        )


def check_maps(maps: Sequence[Tensor], channels: tuple[int, ...]) -> None:
    """Raise ValueError unless the maps have the numbers of channels that the head was made for."""
    widths = tuple(feature.shape[1] for feature in maps)
    if widths != channels:
        raise ValueError(f"the maps have {widths} channels; this head was made for {channels}. Give the same layers.")


def check_map(index: int, feature: Tensor, channels: tuple[int, ...]) -> None:
    """Raise ValueError unless map ``index`` has the number of channels that the head was made for."""
    if index >= len(channels) or feature.shape[1] != channels[index]:
        raise ValueError(
            f"map {index} has {feature.shape[1]} channels; this head was made for maps of {channels}. Give the same "
            "layers."
        )


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
    """Fit a head in place by the paper's recipe, and return the mean loss of each epoch, (epochs,).

    The loss is the cross-entropy; Adam takes one step an image, and its rate is divided by ten after every 50 epochs.

    Args:
        head: it is changed in place.
        maps: of :func:`images_and_features`, (n, channels, h, w) each, of the labelled images.
        labels: (n, H, W), integers below ``head.parts``. Pixels with negative labels are ignored, so a few brush
            strokes suffice.
        generator: random stream for the order of the images.
        epochs: passes over all images.
        learning_rate: Adam's.
        weight_decay: Adam's.
        show_progress: a bar on standard error.

    Raises:
        ValueError: labels of another shape, of an unknown part, or without pixels of a part.

    Example:
        >>> head, maps = ProjectionHead([1], 2, width=4), [torch.arange(16.0).view(1, 1, 4, 4) - 8]
        >>> losses = fit_head(head, maps, (maps[0][:, 0] > 0).long(), generator=torch.Generator(), epochs=30)
        >>> bool(losses[-1] < losses[0])
        True

    Source: Wehrheim et al., "Linking in Style" (2024), its released code.
    """
    _check_labels(labels, len(maps[0]), head.parts)
    size = (int(labels.shape[1]), int(labels.shape[2]))
    features = [feature.detach() for feature in maps]
    optimizer = torch.optim.Adam(head.parameters(), learning_rate, weight_decay=weight_decay)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, 50, 0.1)
    losses = []
    with torch.enable_grad():
        for _ in progress(range(epochs), "head", show=show_progress):
            total = torch.zeros((), device=labels.device)
            for row in torch.randperm(len(labels), generator=generator, device=generator.device).tolist():
                target = labels[row : row + 1].long()
                logits = head([feature[row : row + 1] for feature in features], size)
                # the mean over no labelled pixel would be nan
                loss = F.cross_entropy(logits, target.clamp_min(-1), ignore_index=-1, reduction="sum")
                loss = loss / (target >= 0).sum().clamp_min(1)
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
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} for maps of {rows} images; expected integers "
            f"({rows}, H, W)."
        )
    present = labels[labels >= 0].unique().tolist()
    missing = sorted(set(range(parts)) - set(present))
    if missing or max(present) >= parts:
        raise ValueError(
            f"the labels have parts {present}; the head has parts 0 to {parts - 1}, and needs a few pixels of each."
        )
