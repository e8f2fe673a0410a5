"""A kind of evaluation in one file, as a stranger's package would bring it: the mean logit of every set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import harness


class GaugeSection(harness.Section):
    """The key `gauges` of a suite: what is added to the mean."""

    gauges: list[float] = []


class GaugeCell(harness.Cell):
    """A model, an offset and a set."""


class GaugeReport:
    """The numbers, one line per record."""

    def rows(self, folder: Path) -> list[tuple[str, str, float]]:
        records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        kept = [r for r in records if r["kind"] == "gauge" and not r["error"]]
        return [(r["gauge"], r["ood"] or "id", r["metrics"]["mean"]["value"]) for r in kept]

    def write(self, folder: Path) -> None:
        if rows := self.rows(folder):
            (folder / "gauges.csv").write_text("".join(f"{','.join(map(str, row))}\n" for row in rows))

    def draw(self, folder: Path, *, width: int) -> list[str]:
        return [f"gauge {gauge} on {on}: {value:.3f}" for gauge, on, value in self.rows(folder)]

    def frame(self, folder: Path) -> None:
        return None


class GaugeSitting(harness.Sitting[GaugeCell]):
    """The gauges of one model."""

    def key(self, cell) -> str:
        stream = self.job.sets.stream(cell.on)
        return f"gauge 1 {cell.place['gauge']} {self.job.bench.loaded.features_key(stream, layers=False)}"

    def measured(self, cell) -> harness.Measured:
        features = self.job.bench.features(cell.on, self.job.sets.stream(cell.on))
        mean = sum(float(chunk.logits.sum()) for chunk in features) / len(features)
        value = {"value": mean + float(cell.place["gauge"]), "lo": None, "hi": None}
        return harness.Measured({"metrics": {"mean": value}})


class Gauges(harness.Evaluation[GaugeCell]):
    """The mean logit of every set."""

    name = "gauge"
    sitting = GaugeSitting
    section = GaugeSection
    report = GaugeReport()

    def check(self, plan) -> None:
        for offset in plan.suite.section(GaugeSection).gauges:
            if offset < 0:
                raise harness.InputError(f"gauges has {offset}. Give numbers from 0 up")

    def cells(self, plan, model) -> Iterator[GaugeCell]:
        for offset in plan.suite.section(GaugeSection).gauges:
            for name in ("id", *(entry.name for entry in plan.sets)):
                cell_id = plan.cell_id(model, what=f"gauge {offset}", on=name)
                place, head = {"gauge": str(offset)}, {"kind": "gauge"}
                yield GaugeCell(model, None, name, cell_id, place, head, frozenset({"logits"}))


@harness.hookimpl
def harness_evaluations() -> Iterator[harness.EvaluationSpec]:
    yield harness.EvaluationSpec("gauge", Gauges)
