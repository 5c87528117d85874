"""A picture of contribution against intensity and edges: the maps, and all units' correlations beside chance."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .figure import INK, QUIET, array, bare, draw_photo
from .heat import HEAT
from .sheet import MARGIN, PAGE, Sheet

GAP = 0.1


def association_rows(
    photo: Tensor,
    total: Tensor,
    fields: Mapping[str, Tensor],
    rhos: Mapping[str, tuple[Tensor, Tensor]],
    *,
    layer: str = "layer",
) -> Figure:
    """One row a field: the field beside what the layer paints, and the units' rank correlations beside the control's.

    Args:
        photo: (C, H, W) in [0, 1].
        total: (H, W), what all units paint together.
        fields: by name, (H, W), for example intensity and edges.
        rhos: by name, (units,) and the control's (repeats, units): an ``Association``.
        layer: its name, for the heading.

    Raises:
        ValueError: no field, fields without correlations, or maps of another size than the photo.

    Example:
        >>> field, rho = torch.rand(8, 12), (torch.rand(5), torch.rand(9, 5))
        >>> figure = association_rows(torch.rand(3, 8, 12), field, {"edges": field}, {"edges": rho})
        >>> figure.savefig("association.png")  # doctest: +SKIP
    """
    size = tuple(photo.shape[-2:])
    if not fields or set(fields) - set(rhos) or any(tuple(f.shape) != size for f in [total, *fields.values()]):
        shapes = {name: tuple(field.shape) for name, field in {"total": total, **fields}.items()}
        raise ValueError(f"got maps {shapes} and correlations of {list(rhos)}; wanted {size} and the same names.")
    cell = 1.72
    tall = cell * size[0] / size[1]
    high = max(tall, 1.15)
    sheet = Sheet()
    top = sheet.heading(
        f"Do the units of {layer} follow the picture's intensity or its edges?",
        "right: each unit's rank correlation with the field (blue) and with the same field rolled elsewhere (grey)",
    )
    places = [MARGIN + i * (cell + GAP) for i in range(3)]
    for left, word in zip(places, ("the picture", "all units' paint", "the field"), strict=True):
        sheet.line(left + cell / 2, top, word, size=9, align="center")
    top += 0.2
    left, across = places[-1] + cell + 0.3, PAGE - MARGIN - places[-1] - cell - 0.3
    for name, field in fields.items():
        for place, values in zip(places, (None, total, field), strict=True):
            axes = sheet.axes(place, top, cell, tall)
            bare(axes)
            if values is None:
                draw_photo(axes, photo)
            else:
                axes.imshow(array(values), cmap="gray" if values is field else HEAT, interpolation="nearest")
        found, control = (array(rho) for rho in rhos[name])
        found, control = found[np.isfinite(found)], control[np.isfinite(control)]
        reach = max(float(np.abs(found).max(initial=0.1)), float(np.quantile(np.abs(control), 0.99))) * 1.05
        edges = np.linspace(-reach, reach, 32)
        axes = sheet.axes(left, top + 0.2, across, high - 0.36)
        for rho, colour, opaque in ((control, "#9a9aa2", 0.75), (found, "#1f5fa8", 0.65)):
            heights = np.histogram(rho, edges)[0] / max(len(rho), 1)
            axes.bar(edges[:-1], heights, width=edges[1] - edges[0], align="edge", color=colour, alpha=opaque)
        bare(axes)
        axes.axvline(0, color=INK, linewidth=0.8)
        low, top_number = (f"{sign * reach:+.2f}" for sign in (-1, 1))
        for part, words, align in ((0.0, low, "left"), (0.5, "0", "center"), (1.0, top_number, "right")):
            sheet.line(left + part * across, top + high - 0.14, words, size=7.5, colour=QUIET, align=align)  # type: ignore[arg-type]
        middle, chance = (np.median(np.abs(rho)) if len(rho) else np.nan for rho in (found, control))
        says = f"{name}: median |ρ| {middle:.2f}, elsewhere {chance:.2f}"
        sheet.line(left, top, says, size=9, bold=True)
        top += high + 0.16
    return sheet.done(top)
