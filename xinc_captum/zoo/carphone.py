"""A trained network of a video, small enough to come with this package."""

from importlib import resources

from ..inr import Loaded, load


def carphone_nerv() -> Loaded:
    """A NeRV fitted to the first 24 frames of ``carphone_pristine`` at 72 x 88.

    Its weights were kept in half precision and come back in float32. Made by ``docs/make_carphone.py``; the frames it
    was fitted to are ``video("carphone_pristine", 24, (72, 88))``.

    Returns:
        The model and (frames, H, W).

    Example:
        >>> from xinc_captum.inr import times
        >>> model, size = carphone_nerv()
        >>> size, model(times(size[0])[:2]).shape
        ((24, 72, 88), torch.Size([2, 3, 72, 88]))

    Source: Chen et al., "NeRV: Neural Representations for Videos" (NeurIPS 2021).
    """
    packaged = resources.files(__package__).joinpath("data", "carphone_nerv.safetensors")
    with resources.as_file(packaged) as path:
        return load(path)
