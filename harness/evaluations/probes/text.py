"""The probes' table as text: models by row, probes by column, and the correlations with accuracy below."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from harness.base.cache import write_atomically
from harness.evaluations.probes.table import FEWEST_MODELS, probe_table
from harness.reports.records import holds
from harness.reports.wording import ABSENT, json_of_frames, markdown_table, terminal_table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType

    from harness.evaluations.probes.table import ProbeTable


_NAMES = ("model", "on", "probe")  # columns that are names


def write_probes(folder: Path) -> None:
    """Write probes.csv and probes.md beside a run's records; nothing where nothing was probed."""
    if holds(folder, "probe"):
        table = probe_table([folder])
        write_atomically(folder / "probes.csv", as_csv(table))
        write_atomically(folder / "probes.md", as_markdown(table))


def as_csv(table: ProbeTable) -> str:
    """Write one line a model, seed, set and probe, at full precision."""
    return table.frame.to_csv(index=False, lineterminator="\n")


def as_json(table: ProbeTable) -> str:
    """Write the numbers and the correlations at full precision."""
    frames = {"probes": table.frame, "correlations": table.correlations}
    return json_of_frames({"suite": table.suite}, frames, table.notes)


def as_markdown(table: ProbeTable) -> str:
    """Write both tables, with what a reader must know below."""
    both = (_numbers(table), _correlated(table))
    parts = [markdown_table(headers, rows) for headers, rows in both if rows]  # encoders have no accuracy
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in legend(table))]) + "\n"


def as_terminal(table: ProbeTable) -> RenderableType:
    """Draw both tables, with what a reader must know below."""
    from rich.console import Group
    from rich.text import Text

    drawn = [terminal_table(f"{table.suite}: probes", *_numbers(table), names=_NAMES)]
    if len(table.correlations):
        drawn.append(terminal_table("correlation with accuracy", *_correlated(table), names=_NAMES))
    return Group(*drawn, Text("\n".join(legend(table))))


def legend(table: ProbeTable) -> list[str]:
    """Say how the tables are read."""
    return [
        "Of several seeds: the mean, and after ± the standard deviation between them.",
        "Correlation: Spearman's, over all trained models, one point each, with its 95 % interval (Fisher's scale, "
        "Bonett & Wright 2000). Accuracy is that on the set where it has ID's labels, else that on ID test.",
        f"{ABSENT}: not applicable, not measured, constant, or fewer than {FEWEST_MODELS} models.",
        *table.notes,
    ]


def _numbers(table: ProbeTable) -> tuple[list[str], list[list[str]]]:
    frame = table.frame
    probes = list(dict.fromkeys(frame["probe"]))
    groups = {place: of for place, of in frame.groupby(["model", "on"], sort=False)}
    rows = []
    for (model, on), of_place in groups.items():
        cells = [_summary(of_place.loc[of_place["probe"] == probe, "value"]) for probe in probes]
        accuracy = _summary(100 * of_place.drop_duplicates("seed")["accuracy"].dropna())
        rows.append([str(model), str(on), accuracy, *cells])
    return ["model", "on", "accuracy (%)", *probes], rows


def _correlated(table: ProbeTable) -> tuple[list[str], list[list[str]]]:
    rows = [
        [str(row["probe"]), str(row["on"]), str(row["models"]), _correlation(row)]
        for row in table.correlations.to_dict(orient="records")
    ]
    return ["probe", "on", "models", "correlation with accuracy"], rows


def _correlation(row: dict[Any, Any]) -> str:
    if math.isnan(row["correlation"]):
        return ABSENT
    return f"{row['correlation']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]"


def _summary(values: pd.Series[float]) -> str:
    found = [float(value) for value in values]
    if not found:
        return ABSENT
    if len(found) == 1:
        return f"{found[0]:.4g}"
    return f"{statistics.fmean(found):.4g} ± {statistics.stdev(found):.2g}"
