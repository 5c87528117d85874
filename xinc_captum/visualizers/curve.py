"""A picture of the way: how a score and the distance to the photo grew, step by step."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from .figure import INK, array, legend_of, new_figure
from .sheet import PAGE

DASHES = ("-", "--", ":", "-.")  # so that lines differ without their colours
COLOURS = ("#1f5fa8", "#c4561a", "#3a7d44", "#8a4a9e", "#6b6b6b", "#b08900")


def score_curve(
    scores: Tensor,
    distances: Tensor | None = None,
    *,
    titles: Sequence[str],
    unit: str = "score",
    layer: str | None = None,
) -> Figure:
    """How the score and the distance to the photo grew, step by step, one line a feature.

    Args:
        scores: (steps, N), nan where a row had arrived.
        distances: (steps, N) likewise, or None.
        titles: each line's feature.
        unit: what the score is: "logit", "activation" …
        layer: where the distance was measured.

    Raises:
        ValueError: another number of dims, or of titles.

    Example:
        >>> figure = score_curve(torch.rand(9, 2).cumsum(0), torch.rand(9, 2), titles=["lion", "lynx"], unit="logit")
        >>> figure.axes[0].get_xlabel()
        'steps made'
    """
    if scores.dim() != 2 or scores.shape[1] != len(titles):
        raise ValueError(
            f"scores have shape {tuple(scores.shape)} for {len(titles)} titles; wanted (steps, rows), a title a row."
        )
    if distances is not None and distances.shape != scores.shape:
        raise ValueError(
            f"distances have shape {tuple(distances.shape)}; wanted that of the scores, {tuple(scores.shape)}."
        )
    panels = [(scores, f"{unit}, mean over the views", "the score")]
    if distances is not None:
        where = f" at {layer}" if layer else ""
        panels.append((distances, f"distance of features{where}", "distance to the photo, held down meanwhile"))
    figure = new_figure(PAGE, 3.1 + 0.2 * ((len(titles) + 2) // 3))
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.set(w_pad=0.12, h_pad=0.08)  # type: ignore[call-arg]
    drawn = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (values, name, words) in zip(drawn, panels, strict=True):
        for row in range(len(titles)):
            style = {"color": COLOURS[row % len(COLOURS)], "linestyle": DASHES[row % len(DASHES)]}
            axes.plot(array(values[:, row]), linewidth=1.8, **style)
        axes.set_title(words, fontsize=10, color=INK)
        axes.set_xlabel("steps made", fontsize=9)
        axes.set_ylabel(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6ea", linewidth=0.8)
    columns = min(3, len(titles))
    legend_of(
        figure, drawn[0].get_lines(), titles, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False
    )
    return figure
