"""What the terminal shows fits its width and one screen; nothing that is cut loses a name or a number."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from journals import read_journal
from rich.console import Console
from toys import TOY_PLUGIN, run_suite

from harness.reports.board_terminal import as_terminal
from harness.reports.leaderboard import leaderboard, leaderboards
from harness.reports.terminal import draw_sheet
from harness.reports.text import Sheet

ADAPTATION = ("model", "adapter", "protocol", "error (%)", "ID error after (%)", "resets", "forwards")
NAMES = ADAPTATION[:3]


def lines_of(drawing: Any, width: int = 100) -> list[str]:
    """Draw, and return the lines without the blanks at their ends."""
    shown = io.StringIO()
    Console(file=shown, width=width).print(drawing)
    return [line.rstrip() for line in shown.getvalue().splitlines()]


def board_of(*folders: Path, width: int = 100, with_sets: bool = False) -> list[str]:
    return lines_of(as_terminal(leaderboards(folders), width=width, with_sets=with_sets), width)


def sheet(adapter: str = "tent") -> Sheet:
    rows = [["net", adapter, "episodic", "24.3", "1.4", "48", "8.35"]]
    return Sheet("toy: adaptation", ADAPTATION, rows, NAMES, has_headings=True)


def test_the_model_is_a_heading_over_its_rows() -> None:
    assert lines_of(draw_sheet(sheet(), 100)) == [
        "toy: adaptation",
        "  adapter  protocol  error (%)  ID error after (%)  resets  forwards",
        "net",
        "  tent     episodic       24.3                 1.4      48      8.35",
    ]


def test_headers_are_folded_before_columns_are_left_out_from_the_right() -> None:
    assert lines_of(draw_sheet(sheet(), 54), 54) == [
        "toy: adaptation",
        "                               ID",
        "                            error",
        "                     error  after",
        "  adapter  protocol    (%)    (%)  resets  forwards",
        "net",
        "  tent     episodic   24.3    1.4      48      8.35",
    ]
    assert lines_of(draw_sheet(sheet(), 45), 45)[-3:] == [
        "net",
        "  tent     episodic   24.3    1.4      48",
        "Left out at this width: forwards.",
    ]


def test_a_long_name_is_folded_and_never_cut() -> None:
    name = "cotta(augmentations=8,flip=False,rate=0.001)"
    lines = lines_of(draw_sheet(sheet(name), 65), 65)
    assert max(map(len, lines)) <= 65
    rows = lines[lines.index("net") + 1 :]
    assert rows[-1].endswith("8.35")
    assert "".join(line.strip().split("  ")[0] for line in rows) == name


def test_every_line_of_the_board_fits_100_columns(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    folder = run_suite(toy_suite, tmp_path / "out").folder
    lines = board_of(folder)
    assert max(map(len, lines)) <= 100
    assert lines[0] == "toy: group means"
    row = leaderboard([folder]).frame.set_index("scorer").loc["margin"]
    (shown,) = [line for line in lines if line.startswith("  margin ")]
    interval = f"{100 * row['near_auroc_lo']:.1f}, {100 * row['near_auroc_hi']:.1f}"
    assert f"{100 * row['near_auroc']:.1f} [{interval}]" in shown
    assert f"{100 * row['far_fpr95_id']:.1f}" in shown
    assert not [line for line in lines if "closer" in line and "AUROC" in line]
    with_sets = board_of(folder, with_sets=True)
    assert "toy: near" in with_sets
    assert max(map(len, with_sets)) <= 100
    (header,) = [line for line in with_sets if "closer AUROC" in line]
    assert "close AUROC" in header


def test_the_heading_gives_accuracy_and_preprocessing(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    folder = run_suite(toy_suite, tmp_path / "out").folder
    stated = json.loads((folder / "run.json").read_text())["models"]["network (seed 0)"]["preprocessing"]
    (accuracy,) = [r["metrics"]["accuracy"]["value"] for r in read_journal(folder) if r["kind"] == "model"]
    (line,) = [line for line in board_of(folder) if line.startswith("network:")]
    assert f"ID accuracy {100 * accuracy:.1f} [" in line
    _, height, width = stated["input_size"]
    assert f"{height}×{width} grey, mean" in line
    assert stated["interpolation"] in line


def test_a_scorer_that_repeats_another_is_a_remark_and_no_row(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"] = ["level", "margin", {"name": "level", "sign": 1.0}]
    lines = board_of(run_suite(toy_suite, tmp_path / "out").folder)
    assert sorted(line.split()[0] for line in lines if line.startswith("  "))[:2] == ["level", "margin"]
    assert not [line for line in lines if line.startswith("  level(sign=1.0)")]
    assert "level(sign=1.0) gives the scores of level." in lines


def test_what_does_not_apply_is_one_line(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"].append("needs_linear")
    toy_suite["models"] = [{"name": "network", "params": {"head": "distance"}}]
    lines = board_of(run_suite(toy_suite, tmp_path / "out").folder)
    assert [line for line in lines if "needs_linear" in line] == [
        "Not applicable: needs_linear (network(head=distance))."
    ]


def test_failures_are_one_line_per_cause_with_the_count_and_the_first_cells(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"].append("raises")
    toy_suite["models"] = [{"name": "network", "seeds": [0, 1]}]
    lines = board_of(run_suite(toy_suite, tmp_path / "out").folder, width=300)
    (line,) = [line for line in lines if "by design" in line]
    assert line.startswith(
        "6 cells failed: ZeroDivisionError: by design (raises on bright with network (seed 0), "
    )
    assert line.endswith(" and 3 more)")


def test_a_model_that_did_not_run_is_named_once(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    plugin = tmp_path / "unloadable.py"
    plugin.write_text(
        "import harness\n"
        "def build(request):\n    raise OSError('no weights')\n"
        "@harness.hookimpl\n"
        "def harness_models():\n    yield harness.ModelSpec('unloadable', build)\n"
    )
    toy_suite["models"] = [{"name": "network"}, {"name": "unloadable"}]
    folder = run_suite(toy_suite, tmp_path / "out", plugins=(TOY_PLUGIN, plugin)).folder
    lines = board_of(folder, width=300)
    assert [line for line in lines if "unloadable" in line] == [
        "Did not run: unloadable (seed 0): OSError: no weights"
    ]
    assert "unloadable" in (folder / "leaderboard.md").read_text()


def test_three_models_with_eleven_scorers_are_one_screen(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"] = [{"name": "level", "sign": float(sign)} for sign in range(1, 12)]
    toy_suite["models"] = [{"name": "network", "label": label, "seeds": [0]} for label in ("a", "b", "c")]
    lines = board_of(run_suite(toy_suite, tmp_path / "out").folder)
    assert len([line for line in lines if line.startswith("  level")]) == 33
    assert len(lines) <= 50
