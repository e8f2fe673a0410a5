"""Adapters in a suite: each passage by itself, under its protocol, with what it did on every shifted set."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from journals import read_journal, records_of
from scipy.stats import t as student
from toys import TOY_PLUGIN, as_toml, run_suite, toy_module
from typer.testing import CliRunner

import harness
from harness.base.errors import HarnessError, InputError, RecordsError
from harness.cli import app
from harness.data.streams import Stream
from harness.evaluations.adaptation import protocols
from harness.evaluations.adaptation.table import adaptation_table, adaptation_text
from harness.reports.text import as_json, as_markdown

SETS = {"dim": 9, "noisy": 10}  # shifted sets, and the seeds of their images


@pytest.fixture
def adapted(toy_suite: dict[str, Any]) -> dict[str, Any]:
    shift = [
        {"name": name, "dataset": "levels", "params": {"seed": seed, "offset": 3 * seed - 27}}
        for name, seed in SETS.items()
    ]
    return toy_suite | {"scorers": [], "ood": [], "shift": shift, "adapters": ["bump"]}


def found(folder: Path) -> dict[tuple[str, str, int, str], dict[str, Any]]:
    """Read records by adapter, protocol, stream seed and set."""
    return {
        (r["adapter"], r["protocol"], r["seeds"]["stream"], r["ood"]): r
        for r in read_journal(folder)
        if r["kind"] == "adaptation"
    }


def value(record: dict[str, Any], metric: str = "error") -> float:
    number: float = record["metrics"][metric]["value"]
    return number


def by_hand(orders: list[tuple[str, np.ndarray]], step: float = 1.0) -> dict[str, dict[str, float]]:
    """Do what `bump` does, with no harness: errors before and after each batch, set by set, and on ID test at last."""
    module = toy_module()
    network = module.Network(3, shift=0.0)
    errors: dict[str, dict[str, float]] = {}

    def wrong(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = network(torch.from_numpy(images).float()[:, None] / 255)
        return np.asarray(logits.argmax(dim=1).numpy() != labels)

    for name, order in orders:
        seed = SETS[name]
        data = module.Levels(40, 3, seed, 3 * seed - 27, 4)
        before, after = [], []
        for batch in np.split(order, range(16, 40, 16)):
            images, labels = np.stack([data[i] for i in batch]), data.labels[batch]
            before.append(wrong(images, labels))
            with torch.no_grad():
                network.fc.bias[0] += step
            after.append(wrong(images, labels))
        errors[name] = {
            "error": np.concatenate(before).mean(),
            "error_after": np.concatenate(after).mean(),
        }
        test = module.Levels(40, 3, 3, 0, 4)
        errors[name]["id_error"] = wrong(np.stack([test[i] for i in range(40)]), test.labels).mean()
    return errors


def shuffled(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(40)


def test_episodic_begins_anew_with_each_set(adapted: dict[str, Any], tmp_path: Path) -> None:
    result = run_suite(adapted, tmp_path / "out")
    assert result.succeeded
    assert result.cells == result.measured == 2
    records = found(tmp_path / "out")
    for name in SETS:
        expected = by_hand([(name, shuffled(0))])[name]
        record = records["bump", "episodic", 0, name]
        for metric, number in expected.items():
            assert value(record, metric) == pytest.approx(number)
        assert (record["group"], record["n_ood"], record["error"]) == ("csid", 40, None)
    assert expected["error"] != expected["error_after"] != expected["id_error"]


def test_continual_keeps_what_it_learnt_and_forgetting_is_measured_at_its_end(
    adapted: dict[str, Any], tmp_path: Path
) -> None:
    adapted["adapters"] = [{"name": "bump", "protocol": "continual"}]
    run_suite(adapted, tmp_path / "out")
    expected = by_hand([("dim", shuffled(0)), ("noisy", shuffled(0))])
    records = found(tmp_path / "out")
    for name in SETS:
        assert value(records["bump", "continual", 0, name]) == pytest.approx(expected[name]["error"])
    assert "id_error" not in records["bump", "continual", 0, "dim"]["metrics"]
    last = records["bump", "continual", 0, "noisy"]
    assert value(last, "id_error") == pytest.approx(expected["noisy"]["id_error"])


def test_continual_is_a_passage_a_severity(adapted: dict[str, Any], tmp_path: Path) -> None:
    adapted["id"]["params"] = {"side": 8}
    adapted["shift"] = [{"corrupt": ["brightness", "gaussian_noise"], "severity": [1, 5]}]
    adapted["adapters"] = [{"name": "bump", "protocol": "continual"}]
    run_suite(adapted, tmp_path / "both")
    adapted["shift"][0]["severity"] = [5]
    run_suite(adapted, tmp_path / "five")
    both, five = found(tmp_path / "both"), found(tmp_path / "five")
    for kind in ("brightness", "gaussian_noise"):
        place = ("bump", "continual", 0, f"{kind}-5")
        assert both[place]["metrics"] == five[place]["metrics"]
    ends = {name for (*_, name), record in both.items() if "id_error" in record["metrics"]}
    assert ends == {"gaussian_noise-1", "gaussian_noise-5"}


def test_mixed_is_one_stream_of_all_sets_whose_errors_are_told_apart(
    adapted: dict[str, Any], tmp_path: Path
) -> None:
    adapted["adapters"] = [{"name": "bump", "protocol": "mixed", "step": 0.0}]
    run_suite(adapted, tmp_path / "out")
    records = found(tmp_path / "out")
    for name in SETS:
        record = records["bump(step=0.0)", "mixed", 0, name]
        assert value(record) == pytest.approx(by_hand([(name, np.arange(40))], step=0.0)[name]["error"])
        assert value(record, "forwards") == pytest.approx(1, abs=0.1)


def test_which_answer_is_scored_is_the_adapters_to_say(adapted: dict[str, Any], tmp_path: Path) -> None:
    adapted["adapters"] = [{"name": "bump", "answers": "after"}]
    adapted["adaptation"] = {"after": False}
    run_suite(adapted, tmp_path / "out")
    record = found(tmp_path / "out")["bump(answers=after)", "episodic", 0, "dim"]
    assert value(record) == pytest.approx(by_hand([("dim", shuffled(0))])["dim"]["error_after"])


def test_records_tell_steps_resets_passes_and_collapse(adapted: dict[str, Any], tmp_path: Path) -> None:
    adapted["adapters"] = ["bump", "cautious"]
    run_suite(adapted, tmp_path / "out")
    records = found(tmp_path / "out")
    bump, cautious = (records[name, "episodic", 0, "dim"] for name in ("bump", "cautious"))
    assert [value(bump, m) for m in ("updated", "resets", "forwards", "backwards")] == [1, 0, 1, 2]
    assert value(cautious, "updated") == value(cautious, "class_entropy") == 0  # one class throughout
    assert 0.5 < value(bump, "class_entropy") <= 1
    # It was prepared on a batch of 16 training images, so that it says 16 % 3 = 1; a third of the labels are 1.
    assert value(cautious) == pytest.approx(np.mean(np.arange(40) % 3 != 1))


def test_times_tell_what_a_passage_took_in_memory(adapted: dict[str, Any], tmp_path: Path) -> None:
    run_suite(adapted, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "timings.jsonl").read_text().splitlines()]
    (passage,) = [line for line in lines if line["stage"] == "adapt"]
    assert passage["seconds"] > 0
    if Path("/proc/self/clear_refs").exists():
        assert passage["peak_bytes"] >= 0


def test_clean_images_are_shown_once_a_model(adapted: dict[str, Any], toys: Any, tmp_path: Path) -> None:
    adapted["adapters"] = [{"name": "cautious", "protocol": ["episodic", "continual"]}]
    run_suite(adapted, tmp_path / "out")
    assert len(found(tmp_path / "out")) == 4
    assert toy_module().FITTED["cautious"] == 1


DRAWS = """
import harness, torch

class Draws:
    def prepare(self, classifier, batches):
        torch.rand(7)
        return self

    def adapt(self, classifier, batches):
        for images in batches:
            yield harness.Adapted(harness.Features(logits=torch.rand(len(images), 3)))

@harness.hookimpl
def harness_adapters():
    yield harness.AdapterSpec("draws", Draws, needs={"train"})
"""


@pytest.mark.parametrize("whose", ["none", "foreign"])
def test_what_an_adapter_draws_does_not_depend_on_the_passage_in_which_it_is_prepared(
    whose: str, adapted: dict[str, Any], tmp_path: Path
) -> None:
    plugin = tmp_path / "draws.py"
    plugin.write_text(DRAWS)
    suite = adapted | {"adapters": ["draws"], "limits": {"isolate": whose}}
    run_suite(suite, tmp_path / "both", plugins=(TOY_PLUGIN, plugin))
    one = suite | {"shift": [entry for entry in suite["shift"] if entry["name"] == "noisy"]}
    run_suite(one, tmp_path / "one", plugins=(TOY_PLUGIN, plugin))
    place = "draws", "episodic", 0, "noisy"
    both, alone = found(tmp_path / "both")[place], found(tmp_path / "one")[place]
    assert both["metrics"] == alone["metrics"]
    assert both["error"] is None


def test_the_model_and_other_adapters_are_not_touched(adapted: dict[str, Any], tmp_path: Path) -> None:
    alone = copy.deepcopy(adapted)
    adapted["adapters"] = [{"name": "bump", "step": 5.0}, "cautious", "bump"]
    adapted["probes"] = ["mean"]
    run_suite(adapted, tmp_path / "both")
    run_suite(alone, tmp_path / "alone")
    for place, record in found(tmp_path / "alone").items():
        assert found(tmp_path / "both")[place]["metrics"] == record["metrics"]
    models = [
        r["metrics"]["accuracy"]["value"] for r in read_journal(tmp_path / "both") if r["kind"] == "model"
    ]
    again = [
        r["metrics"]["accuracy"]["value"] for r in read_journal(tmp_path / "alone") if r["kind"] == "model"
    ]
    assert models == again


def test_images_are_decoded_once_a_passage_and_once_for_id_at_its_end(
    adapted: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    run_suite(adapted, tmp_path / "out")
    counts = toy_module().DECODED
    shifted = toy_module().Levels(40, 3, 9, 0, 4)
    of_dim = [counts[shifted._images[i].tobytes()] for i in range(40)]
    assert Counter(of_dim) == {
        2: 36,
        3: 4,
    }  # by the model's own record, and by the adapter; two of each once more


def test_a_second_run_measures_nothing_and_a_changed_parameter_only_its_own(
    adapted: dict[str, Any], tmp_path: Path
) -> None:
    adapted["adapters"] = [{"name": "bump", "protocol": ["episodic", "continual"]}, "cautious"]
    adapted["adaptation"] = {"seeds": [0, 1]}
    first, again = (run_suite(adapted, tmp_path / "out") for _ in range(2))
    adapted["adapters"][1] = {"name": "cautious", "seen": 1}
    changed = run_suite(adapted, tmp_path / "out")
    adapted["adaptation"]["batch_size"] = 8
    smaller = run_suite(adapted, tmp_path / "out")
    assert (first.measured, again.measured, changed.measured, smaller.measured) == (12, 0, 4, 12)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", "RuntimeError: out of luck"),
        ("nan", "the logits are no longer finite: the model has diverged"),
        ("short", "the adapter gave 1 predictions for 16 images"),
        ("number", "the adapter gave a int. Yield harness.Adapted"),
        ("twice", "the adapter gave more than one answer per batch"),
        ("stops", "the adapter left"),
    ],
)
def test_an_unruly_adapter_is_a_record_with_its_reason_and_the_others_go_on(
    adapted: dict[str, Any], tmp_path: Path, how: str, message: str
) -> None:
    adapted["adapters"] = [{"name": "unruly_adapter", "how": how, "protocol": "continual"}, "bump"]
    result = run_suite(adapted, tmp_path / "out")
    records = found(tmp_path / "out")
    label = f"unruly_adapter(how={how})"
    assert result.failed == 1
    assert records[label, "continual", 0, "dim"]["error"] is None  # what was measured before is kept
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(records[label, "continual", 0, "noisy"]["error"])
    assert all(records["bump", "episodic", 0, name]["error"] is None for name in SETS)


def test_a_set_that_cannot_be_read_fails_alone(adapted: dict[str, Any], tmp_path: Path) -> None:
    adapted["shift"].append({"name": "gone", "dataset": "unreadable"})
    result = run_suite(adapted, tmp_path / "out")
    errors = {name: r["error"] for (_, _, _, name), r in found(tmp_path / "out").items()}
    assert errors["dim"] is None
    assert "is damaged" in errors["gone"]
    assert result.failed >= 1


def test_a_model_that_does_not_load_leaves_a_record_a_cell(adapted: dict[str, Any], tmp_path: Path) -> None:
    adapted["models"] = [{"name": "network", "params": {"outputs": 2}}]
    result = run_suite(adapted, tmp_path / "out")
    assert all("2 classes" in record["error"] for record in found(tmp_path / "out").values())
    assert result.failed == len(found(tmp_path / "out")) == 2


def test_what_the_network_lacks_is_not_applicable_and_no_failure(
    adapted: dict[str, Any], tmp_path: Path
) -> None:
    adapted["adapters"] = ["bump", "tent", "norm"]  # the toy network has no normalisation layer
    result = run_suite(adapted, tmp_path / "out")
    assert result.succeeded
    assert {place[0] for place in found(tmp_path / "out")} == {"bump"}
    listed = json.loads((tmp_path / "out" / "run.json").read_text())["not_applicable"]
    missing = {entry["adapter"]: entry["missing"] for entry in listed}
    assert missing == {"tent": ["normalisation"], "norm": ["batchnorm"]}


def test_labels_of_a_correlated_stream_come_in_runs() -> None:
    labels = np.repeat(np.arange(10), 50)
    rng = np.random.default_rng(0)
    from harness_plugins.datasets.arrays import ArrayDataset

    images = rng.integers(0, 256, (500, 2, 2), dtype=np.uint8)
    base = harness.Selection.all_of("base", ArrayDataset(images, labels))
    lengths = {}
    for concentration in (0.01, 100.0):
        stream = Stream.correlated(base, batch_size=16, concentration=concentration, seed=0)
        assert sorted(stream.position) == list(range(500))
        lengths[concentration] = 500 / (1 + np.count_nonzero(np.diff(stream.labels)))
    assert lengths[0.01] > 3 * lengths[100.0]
    again = Stream.correlated(base, batch_size=16, concentration=0.01, seed=0)
    other = Stream.correlated(base, batch_size=16, concentration=0.01, seed=1)
    assert again.digest != other.digest
    assert again.digest == Stream.correlated(base, batch_size=16, concentration=0.01, seed=0).digest


def test_the_table_averages_over_sets_with_an_interval_over_streams(
    adapted: dict[str, Any], tmp_path: Path
) -> None:
    adapted["adaptation"] = {"seeds": [0, 1, 2]}
    run_suite(adapted, tmp_path / "out")
    table = adaptation_table([tmp_path / "out"])
    errors = [
        np.mean([by_hand([(name, shuffled(seed))])[name]["error"] for name in SETS]) for seed in range(3)
    ]
    (row,) = table.means.to_dict(orient="records")
    assert row["error"] == pytest.approx(np.mean(errors))
    reach = student.ppf(0.975, 2) * np.std(errors, ddof=1) / np.sqrt(3)
    assert row["hi"] - row["lo"] == pytest.approx(2 * reach)
    assert (row["seeds"], row["streams"]) == (1, 3)
    written = pd.read_csv(tmp_path / "out" / "adaptation.csv")
    assert len(written) == 6
    assert (tmp_path / "out" / "adaptation.md").read_text() == as_markdown(adaptation_text(table))
    assert json.loads(as_json(adaptation_text(table)))["means"][0]["error"] == pytest.approx(row["error"])


def test_the_command_prints_the_table_and_refuses_what_has_none(
    adapted: dict[str, Any], toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    adapted["adapters"] = ["bump", {"name": "unruly_adapter", "protocol": "continual"}]
    run_suite(adapted, tmp_path / "out")
    shown = CliRunner().invoke(app, ["adaptation", str(tmp_path / "out"), "--format", "md"])
    assert shown.exit_code == 0
    assert "| network | bump | episodic |" in shown.stdout
    assert "| network | unruly_adapter |" not in shown.stdout  # it lacks a set, and is noted
    assert "unruly_adapter (continual) failed on noisy: RuntimeError: out of luck" in shown.stdout
    run_suite(toy_suite, tmp_path / "plain")
    with pytest.raises(RecordsError, match=r"no adapters in .*Give the suite `adapters`"):
        adaptation_table([tmp_path / "plain"])
    adapted["shift"] = adapted["shift"][:1]
    run_suite(adapted | {"adapters": ["bump"]}, tmp_path / "other")
    with pytest.raises(RecordsError, match="different suite digests"):
        adaptation_table([tmp_path / "out", tmp_path / "other"])


def test_a_run_shows_its_adapters(adapted: dict[str, Any], tmp_path: Path) -> None:
    suite = tmp_path / "toy.toml"
    suite.write_text(as_toml(adapted))
    arguments = ["run", str(suite), "--plugin", str(TOY_PLUGIN), "--out", str(tmp_path / "out")]
    planned = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert "adapters: bump (episodic)" in planned.stdout
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "toy: adaptation" in shown.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapters": ["bumb"]}, "no adapter named 'bumb'. Did you mean 'bump'"),
        ({"adapters": [{"name": "bump", "protocol": "forever"}]}, "episodic"),
        ({"adapters": [{"name": "bump", "stepp": 1}]}, "step"),
        ({"adapters": ["bump", "bump"]}, r"two adapters are both 'bump \(episodic\)'"),
        ({"shift": []}, "adapters adapt to shifted ID, and there is no"),
        ({"adaptation": {"batch_size": 0}}, "batch_size"),
    ],
)
def test_mistakes_in_a_suite_are_one_line(
    adapted: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(HarnessError, match=message) as raised:
        run_suite(adapted | change, tmp_path / "out")
    assert "\n" not in str(raised.value)


def test_the_records_of_equal_runs_are_the_same_bytes(adapted: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_suite(adapted, tmp_path / name, cache=tmp_path / f"cache-{name}")
    assert records_of(tmp_path / "one") == records_of(tmp_path / "two")


def test_the_adapter_of_the_document_works(adapted: dict[str, Any], tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "adaptation.md").read_text()
    (shown,) = re.findall(r'```python\n("""Moves the logits.*?)```', document, re.DOTALL)
    plugin = tmp_path / "recentre.py"
    plugin.write_text(shown)
    adapted["adapters"] = ["recentre"]
    result = run_suite(adapted, tmp_path / "out", plugins=(TOY_PLUGIN, plugin))
    assert result.succeeded
    network, data = toy_module().Network(3, shift=0.0), toy_module().Levels(40, 3, 9, 0, 4)
    wrong = []
    for batch in np.split(shuffled(0), range(16, 40, 16)):
        with torch.no_grad():
            logits = network(torch.from_numpy(np.stack([data[i] for i in batch])).float()[:, None] / 255)
        shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
        wrong += (np.argmax(shares / shares.mean(axis=0), axis=1) != data.labels[batch]).tolist()
    assert value(found(tmp_path / "out")["recentre", "episodic", 0, "dim"]) == pytest.approx(np.mean(wrong))


def test_a_protocol_that_repeats_or_leaves_out_a_set_is_refused(
    adapted: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    twice = protocols.Protocol(lambda entries: [((e.name,), (e.name,)) for e in entries], protocols._shuffled)
    monkeypatch.setitem(protocols.PROTOCOLS, protocols.EPISODIC, twice)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'episodic' must give each shifted set once"):
        run_suite(adapted, tmp_path / "out")
