"""Names of users reach every format whole: brackets, bars, backslashes and letters that a terminal lacks."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pandas as pd
import pytest
from rich.console import Console

from harness.reports.terminal import as_terminal
from harness.reports.text import Sheet, Text, as_markdown
from harness.reports.wording import _latex_escaped

NAMES = ["net [ours]", "[/x]", "a|b", r"C:\net", "[bold]net", "Å"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_as_it_is(name: str) -> None:
    text = Text([Sheet(f"suite {name}", ["model", name], [[name, "1"]], ["model"])], [], pd.DataFrame(), {})
    shown = io.StringIO()
    Console(file=shown, width=200).print(as_terminal(text, 200))
    assert shown.getvalue().count(name) == 3  # in the title, the header and the cell


def test_markdown_and_latex_escape_what_they_would_read() -> None:
    sheet = Sheet("", ["model"], [["a|b"], [r"C:\net"], ["two\nlines"]], ["model"])
    lines = as_markdown(Text([sheet], [], pd.DataFrame(), {})).splitlines()
    assert lines[2:5] == [r"| a\|b |", r"| C:\\net |", "| two lines |"]
    assert _latex_escaped(r"a_b & 5% #1 $x$ {y} ~ ^ \z") == (
        r"a\_b \& 5\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )


def test_a_terminal_that_lacks_a_letter_ends_no_command() -> None:
    code = (
        "from rich.text import Text; from harness.cli import commands\n"
        "commands.app = lambda **_: commands.draw(Text('net Å'))\n"
        "commands.main()"
    )
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    ran = subprocess.run([sys.executable, "-c", code], env=ascii_only, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, b"net ?\n"), ran.stderr
