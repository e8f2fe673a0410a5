"""The look of all pictures: the harness's own style and colours, panels in rows, and a legend beside them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Inches = tuple[float, float]

_STYLE: Mapping[Any, Any] = {
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "font.size": 8,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # keeps text editable; journals refuse Type 3
    "savefig.dpi": 200,
    "svg.hashsalt": "ood-harness",
    "text.parse_math": False,  # a name may contain a dollar sign
}

ID_COLOUR = "#0072b2"
# Okabe and Ito's colours, distinct under every kind of colour blindness, without blue and the faint yellow; then two of
# Tol's.
COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#d55e00", "#000000", "#56b4e9", "#882255", "#999933")
LINES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D")
COLUMNS = 3  # panels side by side; more would be too small on paper


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw in the harness's style, and give the process its own back."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def laid_out(count: int, *, columns: int, size: Inches, gap: Inches) -> tuple[Figure, list[Axes]]:
    """Lay panels out row by row, with gaps for labels and legends. Legends do not change the size of a panel."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    columns = -(-count // rows)  # four panels are two by two
    width, height = columns * (size[0] + gap[0]), rows * (size[1] + gap[1])
    figure = Figure(figsize=(width, height))
    panels = []
    for number in range(count):
        row, column = divmod(number, columns)
        left, top = column * (size[0] + gap[0]), row * (size[1] + gap[1])
        bottom = height - top - size[1]
        panels.append(figure.add_axes((left / width, bottom / height, size[0] / width, size[1] / height)))
    return figure, panels


def top_right(panels: Sequence[Axes]) -> Axes:
    """Return the panel beside which a legend for all stands."""
    return max(panels, key=lambda axes: (axes.get_position().y1, axes.get_position().x1))


def legend_beside(axes: Axes, lines: Sequence[Any], labels: Sequence[str], title: str | None = None) -> None:
    """Put a legend to the right of a panel."""
    axes.legend(lines, labels, title=title, loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left")
