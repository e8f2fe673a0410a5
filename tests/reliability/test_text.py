"""Names and text reach every format as text: no formula, no markup, no LaTeX command, no order to a terminal."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from toys import TOY_PLUGIN, run_suite

from harness.base.errors import HarnessError, describe
from harness.base.names import made_name
from harness.cli import commands
from harness.contract.registry import Registry
from harness.evaluations.run import plan_suite
from harness.reports import terminal, text, wording

pytestmark = pytest.mark.trials("inputs")

COMMAND = "\x1b[31m"  # a terminal turns red
NO_NAMES = {
    "": "it is empty",
    "  ": "it is empty",
    "a\nb": "it holds \\n",
    "a\r": "it holds \\r",
    "a\tb": "it holds \\t",
    f"a{COMMAND}": "it holds \\x1b",
    "a\x00b": "it holds \\x00",
    "a\x85b": "it holds \\x85",
    "a\u202eb": "it holds \\u202e",  # what follows is written from right to left
    "a\u2066b": "it holds \\u2066",
    "a\u200bb": "it holds \\u200b",
    "a\u2028b": "it holds \\u2028",
    "a\ue000b": "it holds \\ue000",
    "=1+1": "it starts with '='",
    "+1": "it starts with '+'",
    "-1": "it starts with '-'",
    "@sum": "it starts with '@'",
    " a": "it starts or ends with a blank",
    "a" * 201: "it has 201 characters. Give 200 at most",
}
NAMES = [
    "a|b",
    "[red]a[/red]",
    "a_b",
    "50 %",
    "$a$",
    "\\input{x}",
    "<b>a</b>",
    "über",
    "猫",
    "a=b",
    "x" * 200,
]


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
@pytest.mark.parametrize("place", ["set", "label"])
def test_what_a_format_misreads_is_no_name_in_a_suite(
    name: str, place: str, toy_suite: dict[str, Any]
) -> None:
    entry = toy_suite["ood"][0] if place == "set" else toy_suite["models"][0]
    entry["name" if place == "set" else "label"] = name
    with pytest.raises(HarnessError) as raised:
        plan_suite(toy_suite, Registry.load((TOY_PLUGIN,)), source="toy.toml")
    said = str(raised.value)
    assert NO_NAMES[name] in said or "cannot name a dataset" in said
    assert said.isprintable()
    assert len(said) < 300


@pytest.mark.parametrize("name", NAMES)
def test_other_names_are_kept(name: str, toy_suite: dict[str, Any]) -> None:
    toy_suite["ood"][0]["name"] = toy_suite["models"][0]["label"] = name
    plan = plan_suite(toy_suite, Registry.load((TOY_PLUGIN,)), source="toy.toml")
    assert (plan.sets[0].name, plan.models[0].label) == (name, name)


def test_names_that_look_alike_are_one_name(toy_suite: dict[str, Any]) -> None:
    toy_suite["ood"][0]["name"], toy_suite["ood"][1]["name"] = "caf\u00e9", "cafe\u0301"
    with pytest.raises(HarnessError, match="two datasets are named 'caf\u00e9'"):
        plan_suite(toy_suite, Registry.load((TOY_PLUGIN,)), source="toy.toml")


@pytest.mark.parametrize("name", [*NO_NAMES, "../up", "a/b", "a\\b", "a:b", "a,b", "cafe\u0301"], ids=ascii)
def test_an_offer_without_a_name_is_reported_and_the_others_stay(name: str, tmp_path: Path) -> None:
    plugin = tmp_path / "offers.py"
    plugin.write_text(
        "import harness\n\n@harness.hookimpl\ndef harness_scorers():\n"
        f"    yield harness.ScorerSpec({name!r}, object)\n    yield harness.ScorerSpec('good', object)\n"
    )
    registry = Registry.load((plugin,), blocked=())
    (problem,) = [problem for problem in registry.problems if problem.plugin == "file:offers.py"]
    assert "a scorer has a name that is none: it" in str(problem)
    assert str(problem).isprintable()
    assert "good" in registry.names("scorer")
    assert name not in registry.names("scorer")


def test_an_offer_whose_name_is_no_string_is_reported(tmp_path: Path) -> None:
    plugin = tmp_path / "offers.py"
    plugin.write_text(
        "import harness\n\n@harness.hookimpl\ndef harness_scorers():\n    yield harness.ScorerSpec(3, object)\n"
    )
    registry = Registry.load((plugin,), blocked=())
    assert "it is a int. Give a string" in str(registry.problems[-1])


def test_a_name_made_of_parameters_is_one_printable_line_and_unlike_another() -> None:
    long = [made_name(f"odin({'x' * 300}{end})") for end in "ab"]
    assert max(map(len, long)) <= 200
    assert long[0] != long[1]
    assert made_name("odin(mode=a\nb)") == "odin(mode=a b)"


HOSTILE = [
    "=HYPERLINK(1)",
    "+1+1",
    "-cmd",
    "@sum",
    "\t=1",
    "\r=1",
    "-0.5",
    "+3",
    "a|b",
    "a\n\\input{/etc/passwd}",
    "<script>x</script>",
    "![p](http://x)",
    "[red]a[/red]",
    f"a{COMMAND}b",
    "a\u202eb",
    "\ud800",
]


def report() -> text.Text:
    """A report all of whose cells came from data."""
    cells = [cell for cell in HOSTILE if cell != "\ud800"]  # of which pandas makes no column
    frame = pd.DataFrame({"name": cells, "value": [-0.5] * len(cells), "=header": [None] * len(cells)})
    sheet = text.Sheet("title", ["name", "value"], [[cell, "-50.0"] for cell in HOSTILE], ["name"])
    return text.Text([sheet], HOSTILE, frame, {"rows": frame})


def test_csv_holds_no_formula_and_numbers_stay_numbers() -> None:
    written = text.as_csv(report())
    assert written.replace("\n", "").isprintable()
    read = pd.read_csv(io.StringIO(written), dtype={"name": str})
    assert read["value"].tolist() == [-0.5] * (len(HOSTILE) - 1)
    starts = {name for name in read["name"] if name.lstrip()[0] in "=+-@"}
    assert starts == {"-0.5", "+3"}
    assert list(read.columns) == ["name", "value", "'=header"]


def test_csv_of_other_text_is_that_of_pandas() -> None:
    frame = pd.DataFrame({"a": ["x", None, "y, z"], "b": [1.5, float("nan"), -2.0], "c": [True, False, True]})
    frame["d"] = pd.array([1, None, 3], dtype="Int64")
    frame["e"] = pd.Series([1, None, "x"], dtype=object)
    assert wording.csv_of(frame) == frame.to_csv(index=False, lineterminator="\n")


def test_markdown_holds_no_html_no_link_and_no_further_cell() -> None:
    written = text.as_markdown(report())
    assert written.replace("\n", "").isprintable()
    assert "<script" not in written and "</script" not in written and "](" not in written
    table = [line for line in written.splitlines() if line.startswith("|")]
    assert len(table) == len(HOSTILE) + 2
    assert {line.replace("\\|", "").count("|") for line in table} == {3}
    assert wording.markdown_text("91.2 [90.1, 92.3] < 5 %: a_b, `c`") == "91.2 [90.1, 92.3] < 5 %: a_b, `c`"


def test_latex_holds_no_command_of_a_name() -> None:
    written = wording.latex_table(["name"], [[cell] for cell in HOSTILE], HOSTILE, names=1)
    assert written.replace("\n", "").isprintable()
    live = [line for line in written.splitlines() if "\\input" in line and not line.startswith("%")]
    assert live == []
    assert len(written.splitlines()) == 2 * len(HOSTILE) + 6


def test_json_gives_every_text_back() -> None:
    assert [row["name"] for row in json.loads(text.as_json(report()))["rows"]] == HOSTILE[:-1]


def test_a_terminal_obeys_no_name() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(terminal.as_terminal(report(), 100))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.replace("\n", "").isprintable()
    assert "[red]a[/red]" in shown
    assert "a\\x1b[31mb" in shown


def test_a_log_obeys_no_message() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", (f"a{COMMAND}\nb\u202e",), None)
    assert commands._Formatter("%(message)s").format(record) == "a\\x1b[31m b\\u202e"


def test_an_error_is_one_printable_line_without_addresses() -> None:
    assert describe(ValueError(f"a{COMMAND}\nb \u202e {object()!r}")) == (
        "ValueError: a\\x1b[31m b \\u202e <object object at 0x…>"
    )


def test_a_mistake_with_commands_in_it_is_one_printable_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ood-harness", "leaderboard", f"absent{COMMAND}\n\u202e"])
    with pytest.raises(SystemExit) as exit_:
        commands.main()
    said = capfd.readouterr().err
    assert exit_.value.code == 2
    assert said.endswith("\n") and said[:-1].isprintable()


def test_a_run_of_odd_names_has_all_its_files(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["models"][0]["label"] = "[red]\\input{x}|<b>&_%$#{}~^"
    for entry, name in zip(toy_suite["ood"], ("a|b", "\\input{x}", "<b>[x](y)"), strict=True):
        entry["name"] = name
    result = run_suite(toy_suite, tmp_path / "out")
    assert result.succeeded
    frame = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert set(frame["model"]) == {"[red]\\input{x}|<b>&_%$#{}~^"}
    assert {"a|b_auroc", "\\input{x}_auroc", "<b>[x](y)_auroc"} <= set(frame.columns)
