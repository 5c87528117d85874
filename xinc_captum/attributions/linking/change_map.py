"""Where the generator's picture changes as one unit rises: a derivative, laid over the input."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...hooks.forward import Forward, UnsupportedError
from .linked_scene import Scene
from .unit_steps import Direction

_SPAN = 0.02  # of a standard deviation: the step of the difference where no gradient goes through the generator


def change_map(view: Scene, units: list[int], direction: Direction) -> Tensor:
    r"""Size of the derivative of the drawn picture by the units, (N, C, H, W) as the generator draws.

    .. math:: \Bigl| \tfrac{d}{d\epsilon}\, G(\mathrm{link}(r + \epsilon \textstyle\sum_u e_u)) \Bigr|, \qquad
        \text{or } \Bigl| \tfrac{d}{d\epsilon}\, G(\mathrm{link}(r) + \epsilon d_u) \Bigr|

    One forward and two backward passes; a central difference where the generator cannot be differentiated.
    """
    link, way = view.loop.link, view.r.new_zeros(view.r.shape[1])
    way[units] = 1
    moved = way
    if direction != "partial":
        moved = link.direction(units, direction).sum(0)
    start = view.r if direction == "partial" else view.loop.latents(view.r, view.rows).detach()

    def drawn(at: Tensor) -> Tensor:
        return view.loop.draw(view.loop.latents(at, view.rows) if direction == "partial" else at)

    along = moved.to(start).expand_as(start)
    if getattr(view.loop.generator, "differentiable", True):
        try:
            with torch.enable_grad():
                leaf = start.detach().clone().requires_grad_()
                return Forward(leaf, drawn(leaf))(along[None])[0].abs()
        except UnsupportedError:
            pass
    half = _SPAN / 2 * float(link.r_sd[units].max())
    with torch.no_grad():
        return ((drawn(start + half * along) - drawn(start - half * along)) / (2 * half)).abs()


def laid_over(pictures: Tensor, inputs: Tensor) -> Tensor:
    """Pictures in the size and channels of the inputs.

    Other channels are averaged and repeated; another size is resized by an antialiased bilinear filter.
    """
    if pictures.shape[1] != inputs.shape[1]:
        pictures = pictures.mean(1, keepdim=True).expand(-1, inputs.shape[1], -1, -1)
    if pictures.shape[-2:] != inputs.shape[-2:]:
        size = (inputs.shape[-2], inputs.shape[-1])
        pictures = interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)
    return pictures.to(inputs.dtype).detach().contiguous()
