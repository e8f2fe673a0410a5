"""Draws pictures from arrays: histograms, ROC curves, scatters, lines and dots; the same bytes for the same input.

matplotlib is used by its objects, not by pyplot, with the harness's own style. So neither the user's settings nor
another picture in the same process changes a line.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.cache import write_atomically
from harness.base.errors import InputError, unknown_name
from harness.reports.plots.layout import (
    COLOURS,
    COLUMNS,
    ID_COLOUR,
    LINES,
    MARKS,
    laid_out,
    legend_beside,
    own_style,
    top_right,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Metadata of the files, without the time of writing.
_METADATA: Mapping[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
# Petroff's ten colours for points (arXiv:2107.02270), distinct in the same way.
_CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
_GROUP_LINES: Mapping[str, str] = {"near": "-", "far": "--", "csid": ":"}
_ABOVE = 0.3  # inches between the panels and the picture's title
_PLAIN = "{x:g}"  # for logarithmic axes, since mathematical text is off
_CHARACTER = 0.065  # inches, about, of a legend's letter
_LABELLED_CLASSES = 20  # beyond, the classes' numbers would cover the points


@dataclass(frozen=True, eq=False)
class Histogram:
    """Densities of one scorer's scores over shared bins."""

    edges: Array  # (B + 1,)
    id_density: Array  # (B,)
    densities: Mapping[str, Array]  # by set, (B,) each


@dataclass(frozen=True)
class Histograms:
    """One panel per scorer."""

    title: str
    id_name: str
    groups: Mapping[str, str]  # by set
    panels: Mapping[str, Histogram]  # by scorer
    log: bool = False


@dataclass(frozen=True, eq=False)
class Curve:
    """One ROC curve, OOD as the positive class."""

    label: str
    auroc: float
    id_flagged: Array  # (P,) share of ID at or above each threshold, rising from 0 to 1
    ood_flagged: Array  # (P,) share of OOD at or above it


@dataclass(frozen=True)
class RocPanels:
    """One panel per set, with one curve per scorer."""

    title: str
    panels: Mapping[str, Sequence[Curve]]  # by panel's title
    log: bool = False


@dataclass(frozen=True, eq=False)
class Scatters:
    """One panel per OOD set, over the same ID points: positions in the plane."""

    title: str
    id_points: Array  # (N, 2)
    classes: NDArray[np.int64]  # (N,)
    ood_points: Mapping[str, Array]  # by panel's title, (M, 2) each
    axes: tuple[str, str] = ("", "")  # titles of the axes; "" if coordinates have no meaning


@dataclass(frozen=True, eq=False)
class Line:
    """A number over epochs: its mean over seeds, and the lowest and highest seed."""

    epochs: Array  # (E,)
    mean: Array  # (E,)
    low: Array  # (E,)
    high: Array  # (E,)


@dataclass(frozen=True)
class Lines:
    """One panel per probe and set, with one line per model."""

    title: str
    panels: Mapping[str, Mapping[str, Line]]  # by panel's title, then by model


@dataclass(frozen=True, eq=False)
class Dots:
    """One panel per title, with points for each model: a number over another."""

    title: str
    panels: Mapping[str, Mapping[str, Array]]  # by panel's title, then by model: (seeds, 2)
    axes: tuple[str, str]


Picture = Histograms | RocPanels | Scatters | Lines | Dots


def require_writable(path: Path) -> None:
    """Raise UnknownNameError for a suffix other than .png, .svg or .pdf, InputError if the folder does not exist."""
    if path.suffix.lower() not in _METADATA:
        raise unknown_name("picture format", path.suffix or path.name, _METADATA, valid_label="Valid")
    if not path.parent.is_dir():
        raise InputError(
            f"the folder {str(path.parent)!r} of the picture does not exist. Make it, or name another with -o"
        )


def write(picture: Picture, path: Path) -> None:
    """Draw a picture into a .png, .svg or .pdf file: readers see the old or the new file, never a part."""
    require_writable(path)
    suffix = path.suffix.lower()
    buffer = io.BytesIO()
    with own_style():
        figure = _figure(picture)
        titles = [axes.get_title() for axes in figure.axes]
        above = _ABOVE * max((1 + title.count("\n") for title in titles if title), default=0.5)
        figure.text(0, 1 + above / figure.get_figheight(), picture.title, size=10)
        figure.savefig(buffer, format=suffix[1:], metadata=_METADATA[suffix], bbox_inches="tight")
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise InputError(
            f"the picture {str(path)!r} cannot be written: {error.strerror}. Name another with -o"
        ) from None


def _figure(picture: Picture) -> Figure:
    if isinstance(picture, Histograms):
        return _histograms(picture)
    if isinstance(picture, Lines):
        return _lines(picture)
    if isinstance(picture, Dots):
        return _dots(picture)
    return _rocs(picture) if isinstance(picture, RocPanels) else _scatters(picture)


def _histograms(picture: Histograms) -> Figure:
    figure, panels = laid_out(len(picture.panels), columns=COLUMNS, size=(3.2, 2.2), gap=(0.75, 0.8))
    names = list(dict.fromkeys(name for panel in picture.panels.values() for name in panel.densities))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    entries: dict[str, Any] = {}
    for axes, (title, panel) in zip(panels, picture.panels.items(), strict=True):
        entries[f"{picture.id_name} (ID)"] = axes.stairs(
            panel.id_density, panel.edges, fill=True, color=ID_COLOUR, alpha=0.4, linewidth=0
        )
        for name, density in panel.densities.items():
            group = picture.groups[name]
            entries[f"{name} ({group})"] = axes.stairs(
                density,
                panel.edges,
                baseline=None,
                color=colours[name],
                linestyle=_GROUP_LINES.get(group, "-."),
            )
        if picture.log:
            axes.set_yscale("log", nonpositive="clip")
            axes.yaxis.set_major_formatter(_PLAIN)
        axes.set(title=title, xlabel="score, higher = more OOD", ylabel="density")
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlim(panel.edges[0], panel.edges[-1])
    legend_beside(top_right(panels), list(entries.values()), list(entries))
    return figure


def _rocs(picture: RocPanels) -> Figure:
    import numpy as np

    labels = dict.fromkeys(curve.label for curves in picture.panels.values() for curve in curves)
    gap = 1.4 + _CHARACTER * max(map(len, labels))
    figure, panels = laid_out(len(picture.panels), columns=2, size=(2.8, 2.8), gap=(gap, 0.8))
    colours = (ID_COLOUR, *COLOURS)
    look = {label: divmod(number, len(colours)) for number, label in enumerate(labels)}
    for axes, (title, curves) in zip(panels, picture.panels.items(), strict=True):
        chance = np.linspace(0, 1, 201)  # many points: it is curved on a logarithmic axis
        axes.plot(chance, chance, color="#bbbbbb", linewidth=0.6)
        lines = []
        for curve in curves:
            line, colour = look[curve.label]
            lines += axes.plot(
                curve.id_flagged,
                curve.ood_flagged,
                color=colours[colour],
                linestyle=LINES[line % len(LINES)],
            )
        named = [f"{100 * curve.auroc:.1f}  {curve.label}" for curve in curves]
        legend_beside(axes, lines, named, title="AUROC, %")
        axes.set(title=title, xlabel="share of ID flagged", ylabel="share of OOD flagged")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        if picture.log:
            _log_share(axes, curves)
    return figure


def _lines(picture: Lines) -> Figure:
    figure, panels = laid_out(len(picture.panels), columns=COLUMNS, size=(2.8, 2.2), gap=(0.75, 0.8))
    models = dict.fromkeys(model for lines in picture.panels.values() for model in lines)
    colours = (ID_COLOUR, *COLOURS)
    look = {model: divmod(number, len(colours)) for number, model in enumerate(models)}
    entries: dict[str, Any] = {}
    for axes, (title, lines) in zip(panels, picture.panels.items(), strict=True):
        for model, line in lines.items():
            style, colour = look[model]
            (entries[model],) = axes.plot(
                line.epochs, line.mean, color=colours[colour], linestyle=LINES[style % len(LINES)]
            )
            axes.fill_between(
                line.epochs, line.low, line.high, color=colours[colour], alpha=0.15, linewidth=0
            )
        axes.set(title=title, xlabel="epoch")
    legend_beside(top_right(panels), list(entries.values()), list(entries))
    return figure


def _dots(picture: Dots) -> Figure:
    figure, panels = laid_out(len(picture.panels), columns=COLUMNS, size=(2.4, 2.2), gap=(0.6, 0.8))
    models = dict.fromkeys(model for points in picture.panels.values() for model in points)
    colours = (ID_COLOUR, *COLOURS)
    look = {model: divmod(number, len(colours)) for number, model in enumerate(models)}
    entries: dict[str, Any] = {}
    for axes, (title, points_of) in zip(panels, picture.panels.items(), strict=True):
        for model, points in points_of.items():
            mark, colour = look[model]
            entries[model] = axes.scatter(
                points[:, 0], points[:, 1], s=16, color=colours[colour], marker=MARKS[mark % len(MARKS)]
            )
        axes.set(title=title, xlabel=picture.axes[0], ylabel=picture.axes[1])
    legend_beside(top_right(panels), list(entries.values()), list(entries))
    return figure


def _log_share(axes: Axes, curves: Sequence[Curve]) -> None:
    """Use a logarithmic axis for the share of ID; a share of 0 is left out."""
    smallest = min(float(curve.id_flagged[curve.id_flagged > 0][0]) for curve in curves)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.set_xlim(min(smallest, 0.1), 1.0)


def _scatters(picture: Scatters) -> Figure:
    from matplotlib.lines import Line2D

    gap = (0.35, 0.6) if any(picture.axes) else (0.15, 0.4)
    figure, panels = laid_out(len(picture.ood_points), columns=COLUMNS, size=(2.4, 2.4), gap=gap)
    for axes, (title, points) in zip(panels, picture.ood_points.items(), strict=True):
        _draw_classes(axes, picture)
        axes.scatter(points[:, 0], points[:, 1], s=6, color="black", marker="x", linewidths=0.5, alpha=0.7)
        axes.set(title=title, xlabel=picture.axes[0], ylabel=picture.axes[1])
        axes.tick_params(labelbottom=False, labelleft=False, length=0)
    marks = [Line2D([], [], linestyle="", marker=mark, color="black", markersize=4) for mark in "ox"]
    legend_beside(top_right(panels), marks, ["ID test, coloured\nby class", "OOD"])
    return figure


def _draw_classes(axes: Axes, picture: Scatters) -> None:
    """Draw the ID points, and each class's number at their median if there are few classes."""
    import numpy as np
    from matplotlib.patheffects import withStroke

    classes = np.unique(picture.classes).tolist()
    for label, colour in zip(classes, _class_colours(len(classes)), strict=True):
        points = picture.id_points[picture.classes == label]
        axes.scatter(points[:, 0], points[:, 1], s=7, color=colour, alpha=0.7, linewidths=0)
        if len(classes) <= _LABELLED_CLASSES:
            x, y = np.median(points, axis=0).tolist()
            axes.annotate(
                str(label),
                (x, y),
                xytext=(0, 5),
                textcoords="offset points",
                horizontalalignment="center",
                weight="bold",
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=5,
            )


def _class_colours(count: int) -> Sequence[Any]:
    import matplotlib as mpl
    import numpy as np

    if count <= len(_CLASS_COLOURS):
        return _CLASS_COLOURS[:count]
    colours: NDArray[np.float64] = mpl.colormaps["viridis"](np.linspace(0, 1, count))
    return list(colours)
