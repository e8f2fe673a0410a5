"""What the studies share: Fashion-MNIST, features of a network, tables as CSV, and curves as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

import harness
from harness.base.cache import Cache, default_root
from harness.base.progress import progress_bar
from harness.contract.preprocessing import Preprocessing
from harness.contract.registry import Registry
from harness.contract.selection import Selection
from harness.contract.specs import Model, ModelRequest
from harness.data.id_data import IdData
from harness.data.opening import open_id
from harness.data.tables import IdEntry
from harness.models.loaded import resolve_device
from harness.models.training.store import build_recipe
from harness_plugins.probes.accuracy import KnnAccuracy, LinearProbeAccuracy
from harness_plugins.probes.er import vmf_entropy

ROOT = Path(__file__).resolve().parents[2]
TABLES, PICTURES = ROOT / "results" / "studies", ROOT / "docs" / "pictures"
PREPROCESSING = Preprocessing((1, 28, 28), mean=(0.286,), std=(0.353,))  # Fashion-MNIST's own
AT_ONCE = 1024
MOST_TICKS = 4  # that are set where the measurements are
COLOURS = ("#1f5fa8", "#d1495b", "#2e8b57", "#e69f00", "#7a4fa3", "#00838f", "#6d4c41", "#444444")


@dataclass(frozen=True)
class Panel:
    """One panel of a picture: columns of a table over another, a line for each value of `by`, a band over seeds."""

    title: str
    x: str
    y: str
    by: str
    rows: Callable[[pd.DataFrame], pd.Series] | None = None  # which of the table's rows; None: all
    x_label: str = ""
    y_label: str = ""
    log: bool = False
    log_y: bool = False
    scatter: bool = False
    diagonal: bool = False  # a guide where both axes say the same
    lines: Sequence[float] = field(default_factory=tuple)  # horizontal guides


def options(description: str | None, **defaults: int) -> argparse.Namespace:
    """Read the command line: where tables and pictures go, the device, and the study's own whole numbers."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of the CSV files")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder of the pictures")
    parser.add_argument("--device", default="auto")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    arguments.device = resolve_device(arguments.device)
    return arguments


def fashion_mnist(*, train: int, test: int) -> IdData:
    """Open Fashion-MNIST, with so many images of each part."""
    entry = IdEntry.model_validate(
        {
            "dataset": "hf:fashion_mnist",
            "train": {"split": "train", "limit": train},
            "test": {"split": "test", "limit": test},
        }
    )
    return open_id(entry, Registry.load())


def trained(recipe: str, seed: int, data: IdData, registry: Registry, device: str) -> Model:
    """Return the model of a recipe, trained on the study's data, or the one that an earlier run has stored."""
    request = ModelRequest(
        name=f"recipe:{recipe}",
        argument=recipe,
        seed=seed,
        data=data.training,
        device=device,
        store=Cache(default_root()).models,
        progress=True,
        catalogue=registry,
    )
    return build_recipe(recipe, request)


def features(network: Any, selection: Selection, preprocessing: Preprocessing = PREPROCESSING) -> Tensor:
    """Decode a selection and forward it to penultimate features, piece by piece, (N, D)."""
    pieces = []
    for start in range(0, len(selection), AT_ONCE):
        chosen = selection.images(range(start, min(start + AT_ONCE, len(selection))))
        pieces.append(penultimate(network, preprocessing.normalise(preprocessing.batch(chosen))))
    return torch.cat(pieces)


def pixels(selection: Selection) -> Tensor:
    """Decode and normalise a selection, (N, 1, 28, 28)."""
    return PREPROCESSING.normalise(PREPROCESSING.batch(selection.images(range(len(selection)))))


def penultimate(classifier: Any, images: Tensor) -> Tensor:
    """Forward images to penultimate features, (N, D) float64 on the CPU."""
    device = next(classifier.parameters()).device
    with torch.inference_mode():
        parts = [
            classifier.forward_head(classifier.forward_features(part.to(device)), pre_logits=True)
            for part in images.split(AT_ONCE)
        ]
    return torch.cat(parts).double().cpu()


def accuracy(classifier: Any, images: Tensor, labels: Tensor) -> float:
    """Compute the share of images whose largest logit is that of their label."""
    device = next(classifier.parameters()).device
    with torch.inference_mode():
        hits = [
            classifier(part.to(device)).argmax(dim=1).cpu() == truth
            for part, truth in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
        ]
    return float(torch.cat(hits).double().mean())


def encoder_measures(classifier: Any, data: IdData, *, most: int = 2000) -> dict[str, float]:
    """Measure frozen features on the test images: accuracy of k nearest neighbours and of a linear probe, vMF entropy.

    The entropy is that of `most` images. Neighbours and probe are fitted on the training images.
    """
    assert data.train is not None
    train, test = (
        harness.Features(
            penultimate=penultimate(classifier.eval(), pixels(part)).float(),
            labels=torch.as_tensor(part.labels),
        )
        for part in (data.train, data.test)
    )
    given = harness.FitData(train=harness.FeatureSet.of(train))
    probes = {"knn": KnnAccuracy(), "linear": LinearProbeAccuracy()}
    found = {
        name: probe.fit(given).measure(harness.FeatureSet.of(test)).value for name, probe in probes.items()
    }
    units = functional.normalize(test.penultimate[:most].double())
    return {**found, "entropy": vmf_entropy(units).item()}


def each(items: Sequence[Any], what: str) -> Any:
    """Go through the runs of a study, with a bar."""
    with progress_bar(total=len(items), description=what, unit="run", enabled=True) as bar:
        for item in items:
            yield item
            bar.update()


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> pd.DataFrame:
    """Write rows as CSV, with six significant digits, and return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(list(rows))
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    print(f"{path}: {len(frame)} rows")
    return frame


def draw(frame: pd.DataFrame, panels: Sequence[Panel], path: Path, *, columns: int = 3) -> None:
    """Draw panels: each line is a mean, its band goes from the lowest to the highest seed. One legend is for all."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.7 * rows + 0.5), layout="constrained")
    shown: dict[str, Any] = {}
    for number, panel in enumerate(panels, start=1):
        shown |= _draw_panel(figure.add_subplot(rows, columns, number), frame, panel)
    fitting = min(len(shown), 2 * columns)
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=fitting, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None} if path.suffix == ".png" else None)
    print(path)


def _draw_panel(axes: Any, frame: pd.DataFrame, panel: Panel) -> dict[str, Any]:
    """Draw one panel, and return its lines by name. A name has one colour in all panels."""
    colours = dict(zip(frame[panel.by].unique(), COLOURS * 3, strict=False))
    chosen = (frame if panel.rows is None else frame[panel.rows(frame)]).dropna(subset=[panel.y])
    shown = {}
    for name, of_line in chosen.groupby(panel.by, sort=False):
        style: dict[str, Any] = {"color": colours[name], "markersize": 4}
        if panel.scatter:
            (shown[str(name)],) = axes.plot(of_line[panel.x], of_line[panel.y], "o", **style)
            continue
        at = of_line.groupby(panel.x)[panel.y].agg(["mean", "min", "max"])
        (shown[str(name)],) = axes.plot(at.index, at["mean"], marker="o" if len(at) < 12 else None, **style)
        axes.fill_between(at.index, at["min"], at["max"], color=colours[name], alpha=0.2, linewidth=0)
    for height in panel.lines:
        axes.axhline(height, color="#999999", linewidth=0.8, linestyle="--")
    if panel.diagonal:
        axes.axline((0, 0), slope=1, color="#999999", linewidth=0.8, linestyle="--")
    if panel.log:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    measured = sorted(chosen[panel.x].unique()) if not panel.scatter else []
    if 0 < len(measured) <= MOST_TICKS:  # a tick at each; on a logarithmic scale, none between
        axes.set_xticks(measured, [f"{value:g}" for value in measured])
        axes.minorticks_off()
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.x_label or panel.x, fontsize=8)
    axes.set_ylabel(panel.y_label, fontsize=8)
    axes.tick_params(labelsize=7)
    return shown
