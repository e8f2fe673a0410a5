"""The command `plugins`: its list, the details of an offer, and the page of the documents."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len

import harness
from harness import cli
from harness.base.docstrings import comments, docstring, summary
from harness.cli.catalogue import catalogue as page_of
from harness.cli.offers import is_own, parameters_of, use_of
from harness.cli.plugins import offers_of
from harness.contract.registry import KINDS, Registry
from harness.evaluations.run import read_suite
from harness.models.training.recipe import load_recipe

if TYPE_CHECKING:
    from harness.contract.registry import Offered

ROOT = Path(__file__).parents[2]
STRANGER = '''
import harness

def bare(k: int = 3, *, shape: "Unknown | None" = None, **rest):
    return None

class Marked:
    """Take [bold]all[/bold] of <b>x*y*</b> | `z`, as [/nothing] says. 距離による異常検知のための得点であり

    大きい。

    Args:
        k: neighbours, [red]k[/red]
    """

    def __init__(self, k: "int" = 5, name="[/x]"):
        pass

@harness.hookimpl
def harness_scorers():
    yield harness.ScorerSpec("bare", bare)
    yield harness.ScorerSpec("marked", Marked, cite="[id]")
    yield harness.ScorerSpec("a_very_long_name_of_a_scorer_that_no_terminal_of_sixty_columns_holds", Marked)

@harness.hookimpl
def harness_datasets():
    yield harness.DatasetSpec("bare", bare, argument="[WHAT]")
'''


@pytest.fixture(scope="module")
def own() -> dict[str, list[Offered]]:
    """What ood-harness itself offers, by kind."""
    offers = offers_of(Registry.load(blocked=()), list(KINDS))
    return {kind: [offered for offered in of if is_own(offered)] for kind, of in offers.items()}


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    path = tmp_path / "stranger.py"
    path.write_text(STRANGER)
    return path


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run `plugins` with a width of the terminal, and return the exit status, the output and the errors."""

    def run(*arguments: object, columns: int = 100) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["ood-harness", "plugins", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
            raise SystemExit(0)
        output = capfd.readouterr()
        return int(exit_.value.code or 0), output.out, output.err

    return run


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_the_list_fits_the_terminal_and_cuts_no_name(
    columns: int, printed: Any, stranger: Path, own: dict[str, list[Offered]]
) -> None:
    status, output, _ = printed("--plugin", stranger, columns=columns)
    assert status == 0
    lines = output.splitlines()
    assert max(map(cell_len, lines)) <= columns
    firsts = {line.split()[0] for line in lines if line.strip()}
    for kind, offers in own.items():
        assert f"{kind}s" in lines[0] or f"{kind}s" in (line.strip() for line in lines)
        assert {offered.spec.name for offered in offers} <= {word.removesuffix(":") for word in firsts}
    folded = "".join(line[2 : columns // 2 + 2].strip() for line in lines)
    assert "a_very_long_name_of_a_scorer_that_no_terminal_of_sixty_columns_holds" in folded


def test_the_list_names_the_origin_of_what_is_not_first_party(printed: Any, stranger: Path) -> None:
    _, output, _ = printed("--kind", "scorer", "--plugin", stranger, columns=120)
    rows = {line.split()[0]: line.strip() for line in output.splitlines() if line.startswith("  ")}
    assert rows["bare"].split() == ["bare", "(file:stranger.py)"]
    assert "ood-harness" not in rows["gen"]
    assert rows["gen"].endswith("Sum of p^gamma (1 - p)^gamma over the top_m largest p =")


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_markup_in_the_words_of_a_stranger_is_printed_as_it_is(
    columns: int, printed: Any, stranger: Path
) -> None:
    _, listed, _ = printed("--kind", "scorer", "--plugin", stranger, columns=columns)
    _, shown, _ = printed("marked", "--plugin", stranger, columns=columns)
    for output in (listed, shown):
        assert max(map(cell_len, output.splitlines())) <= columns
        words = " ".join(output.split())
        assert "[bold]all[/bold]" in words
        assert "[/nothing]" in words
    assert '"[/x]"' in shown
    assert "[id]" in shown
    assert "    k: neighbours, [red]k[/red]" in shown  # the lines of a list stay


def test_a_stranger_without_docstring_and_citation_is_described(printed: Any, stranger: Path) -> None:
    status, output, _ = printed("bare", "--plugin", stranger)
    assert status == 0
    scorer, dataset = output.split("dataset bare\n")
    for part in (scorer, dataset):
        assert "It has no description." in part
        assert re.search(r"^citation +none is stated$", part.replace(" \n", "\n"), re.MULTILINE) or (
            "none is stated" in part
        )
        assert "file:stranger.py, version file" in part
    assert re.search(r"^k +int +3", scorer, re.MULTILINE)
    assert re.search(r"^shape +Unknown \| None +none", scorer, re.MULTILINE)
    assert re.search(r"^\*\*rest", scorer, re.MULTILINE)
    assert not re.search(r"^k ", dataset, re.MULTILINE)  # a dataset's first parameter is the request
    assert "[WHAT]" in dataset


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("scorer", "gen", ["gamma", "float", "0.1", "Liu, Lochman & Zach", "higher = more OOD", "logits"]),
        ("scorer", "dse_change", ["turns with its parameters; a suite's * leaves it out", "sigma = 10.0"]),
        ("scorer", "flips", ["15 more forward passes", "stream"]),
        ("dataset", "patches:china", ["china | flower", '"patches:china"', "channels"]),
        ("dataset", "corrupt", ['shift = [{ corrupt = ["gaussian_noise"], severity = [3] }]']),
        ("model", "timm:resnet18", ['models = [{ timm = "<NAME>", pretrained = true }]']),
        ("model", "cnn", ['model = "cnn"', "model_params = { width = 32, dropout = 0.0 }"]),
        (
            "suite",
            "digits",
            ["near OOD", "digits-5-9, letters", "recipe digits-cnn", "ood-harness run digits"],
        ),
        ("suite", "svhn-objectives-resnet110", ["far OOD", "scorers", "svhn-resnet110-isomaxplus"]),
        (
            "recipe",
            "digits-cnn",
            ["epochs", "ood-harness train digits-cnn", 'models = [{ recipe = "digits-cnn" }]'],
        ),
        ("objective", "isomaxplus", ["entropic_scale", "arXiv 2105.14399", 'objective = "isomaxplus"']),
        ("probe", "dsmi", ["bits", "labels, penultimate", "Liao et al.", "steps of the diffusion"]),
        (
            "adapter",
            "tent",
            ["normalisation", '"adam" or "sgd"', 'adapters = [{ name = "tent", steps = 1 }]'],
        ),
        ("estimator", "atc_ne", ["score = entropy", "logits, validation", 'estimators = [{ name = "atc_ne"']),
    ],
)
def test_details_of_one_offer_of_each_kind(kind: str, name: str, expected: list[str], printed: Any) -> None:
    status, output, _ = printed("--kind", kind, name, columns=120)
    assert status == 0
    assert output.startswith(f"{kind} {name.partition(':')[0]}\n")
    for text in expected:
        assert text in output
    assert "ood-harness:" in output  # where it comes from
    narrow = printed("--kind", kind, name, columns=60)[1]
    assert max(map(cell_len, narrow.splitlines())) <= 60


def test_a_name_of_several_kinds_shows_all(printed: Any) -> None:
    _, output, _ = printed("dse")
    assert [line for line in output.splitlines() if line in ("scorer dse", "probe dse")] == [
        "scorer dse",
        "probe dse",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gne"], "no plugin offers 'gne'. Did you mean 'gen'"),
        (
            ["--kind", "probe", "dmsi"],
            "no probe named 'dmsi'. Did you mean 'dsmi'? Installed: class_entropy, classifier_accuracy, dse,",
        ),
        (["--kind", "probe", "gen"], "no probe named 'gen'."),
        (["digits:test"], "no plugin offers 'digits:test'. Did you mean 'digits"),  # it takes no argument
    ],
)
def test_an_unknown_name_is_one_line_with_near_ones(arguments: list[str], message: str, printed: Any) -> None:
    status, output, errors = printed(*arguments)
    assert (status, output) == (2, "")
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_json_is_what_it_was_and_takes_a_name(printed: Any) -> None:
    whole = json.loads(printed("--json")[1])
    assert set(whole) == {"plugins", "problems"}
    assert {tuple(row) for row in whole["plugins"]} == {
        ("kind", "name", "plugin", "version", "needs", "cite")
    }
    one = json.loads(printed("--json", "--kind", "scorer", "gen")[1])["plugins"]
    assert one == [row for row in whole["plugins"] if (row["kind"], row["name"]) == ("scorer", "gen")]
    assert one[0]["plugin"] == "ood-harness:gen"


def test_an_offer_whose_import_fails_is_one_line(printed: Any, tmp_path: Path) -> None:
    path = tmp_path / "gone.py"
    path.write_text(
        "import harness\n@harness.hookimpl\ndef harness_scorers():\n"
        "    yield harness.ScorerSpec('gone', harness.Deferred('no.such.module:Gone'))\n"
    )
    assert "gone" in printed("--plugin", path)[1]
    status, _, errors = printed("gone", "--plugin", path)
    assert status == 2
    assert "the parameters of the scorer 'gone' of file:gone.py cannot be read: ModuleNotFoundError" in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_suite_that_cannot_be_read_is_listed_with_the_reason(printed: Any, tmp_path: Path) -> None:
    path = tmp_path / "suites.py"
    path.write_text(
        "import harness\nfrom pathlib import Path\n@harness.hookimpl\ndef harness_suites():\n"
        "    yield harness.SuiteSpec('away', Path('away.toml'))\n"
    )
    status, output, _ = printed("--kind", "suite", "--plugin", path, columns=120)
    assert status == 0
    assert "the suite 'away.toml' cannot be read: No such file or directory" in output
    assert "openood-cifar10" in output
    status, _, errors = printed("away", "--plugin", path)
    assert (status, len(errors.strip().splitlines())) == (2, 1)


def test_the_catalogue_is_what_the_code_says(own: dict[str, list[Offered]]) -> None:
    assert (ROOT / "docs/catalogue.md").read_text() == page_of(own), (
        "write it anew: ood-harness plugins --md > docs/catalogue.md"
    )


def test_the_catalogue_escapes_the_markup_of_a_stranger(stranger: Path) -> None:
    registry = Registry.load([stranger], blocked=())
    marked = registry.get("scorer", "marked")
    (row,) = [line for line in page_of({"scorer": [marked]}).splitlines() if line.startswith("| `marked`")]
    assert "of &lt;b>x&#42;y&#42;&lt;/b> \\| `z`, as" in row
    assert row.count("|") - row.count("\\|") == 7


def test_every_first_party_method_has_a_citation_and_a_description(own: dict[str, list[Offered]]) -> None:
    for kind in ("scorer", "adapter", "estimator", "objective", "probe"):
        uncited = {offered.spec.name for offered in own[kind] if not offered.spec.cite}
        assert uncited <= {"classifier_accuracy"}  # no paper defines accuracy
    for kind, offers in own.items():
        for offered in offers:
            described = offered.spec.path.read_text() if hasattr(offered.spec, "path") else offered.spec.build
            text = described if isinstance(described, str) else docstring(described)
            assert text, f"{kind} {offered.spec.name}"


def test_every_parameter_of_a_first_party_offer_is_explained(own: dict[str, list[Offered]]) -> None:
    unexplained = [
        f"{kind} {offered.spec.name}: {parameter.name}"
        for kind, offers in own.items()
        for offered in offers
        for parameter in parameters_of(kind, offered)
        if not parameter.meaning
        and not re.search(rf"\b{re.escape(parameter.name.strip('*'))}\b", docstring(offered.spec.build))
    ]
    assert unexplained == []


SUITE = """
schema = 1
name = "copied"
id = { dataset = "digits", test = { split = "test" } }
"""
RECIPE = """
schema = 1
name = "copied"
lr = 0.1
epochs = 1
batch_size = 8
"""


def test_every_line_to_copy_is_valid(own: dict[str, list[Offered]], tmp_path: Path) -> None:
    registry = Registry.load(blocked=())
    copied = 0
    for kind, offers in own.items():
        for offered in offers:
            lines: dict[str, list[str]] = {}
            for title, line in use_of(kind, offered, registry):
                lines.setdefault(title or next(reversed(lines)), []).append(line)
            if suite := lines.get("in a suite"):
                text = SUITE + "\n".join(suite)
                text += '\nmodels = [{ name = "x" }]' if kind not in ("model", "recipe") else ""
                read_suite(tomllib.loads(text), registry, source="copied.toml")
            if recipe := lines.get("in a recipe"):
                path = tmp_path / "copied.toml"
                text = RECIPE + "\n".join(recipe)
                path.write_text(text if kind == "model" else text + '\nmodel = "cnn"')
                load_recipe(str(path), registry)
            copied += len(lines)
    assert copied > 100


def test_a_summary_is_the_first_sentence() -> None:
    assert summary("Energy of Liu et al. This is it. More.\n\nRest.") == "Energy of Liu et al. This is it"
    assert summary("One\nline (eq. 2) and v1.5 too.\n\nRest") == "One line (eq. 2) and v1.5 too"
    assert summary("") == ""


def test_a_docstring_is_read_without_an_import() -> None:
    deferred = harness.Deferred("harness_plugins.estimators.norms:MaNo")
    sys.modules.pop("harness_plugins.estimators.norms", None)
    assert docstring(deferred).startswith("(mean σ⁴)^¼")
    assert "harness_plugins.estimators.norms" not in sys.modules
    assert docstring(harness.Deferred("no.such.module:Gone")) == ""
    assert comments(harness.Deferred("harness_plugins.adapters.eta:Eata"))["margin"].startswith("of ln C")
