"""Pictures show what the records and features say, are the same bytes every time, and refuse what is not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from journals import read_journal, without_checksum
from sklearn.metrics import roc_curve
from toys import TOY_PLUGIN, as_toml, run_suite

from harness import cli
from harness.base.errors import InputError, RecordsError, UnknownNameError
from harness.evaluations.pictures import KINDS, FeatureOptions, draw, project, scatters
from harness.models.extract import Counts
from harness.reports.plots import drawing
from harness.reports.plots.curves import BINS, Choice, density, histograms, roc_points, rocs, shared_edges

HEADERS = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}
TOYS = FeatureOptions(device="cpu", plugins=(TOY_PLUGIN,))
SCORES = st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf]), min_size=1, max_size=30)


@pytest.fixture
def ran(toy_suite: dict[str, Any], tmp_path: Path) -> Path:
    return run_suite(toy_suite, tmp_path / "out").folder


@pytest.fixture
def fitting(kind: str, toy_suite: dict[str, Any], tmp_path: Path) -> Path:
    """A run that has what a kind of picture shows."""
    also = {"curves": {"curves": {"probes": ["mean"]}}, "probes": {"probes": ["mean"]}}.get(kind, {})
    return run_suite(toy_suite | also, tmp_path / "out").folder


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["ood-harness", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
        raise SystemExit(0)
    return int(exit_.value.code or 0)


def kept_scores(folder: Path, scorer: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    (record,) = [r for r in read_journal(folder) if (r["scorer"], r["ood"]) == (scorer, name)]
    id_scores, ood_scores = (
        np.load(folder / "scores" / f"{record['scores'][side]}.npy") for side in ("id", "ood")
    )
    return id_scores, ood_scores


# Curves and histograms against their definitions --------------------------------------------------------------------


@given(SCORES, SCORES)
def test_roc_points_are_those_of_scikit_learn_with_ties_and_infinities_by_rank(
    id_scores: list[float], ood_scores: list[float]
) -> None:
    ranks = np.unique([*id_scores, *ood_scores], return_inverse=True)[1]  # scikit-learn refuses infinities
    truth = np.repeat([0, 1], [len(id_scores), len(ood_scores)])
    false_positives, true_positives, _ = roc_curve(truth, ranks, drop_intermediate=False)
    id_flagged, ood_flagged = roc_points(np.array(id_scores), np.array(ood_scores))
    np.testing.assert_array_equal(id_flagged, false_positives)
    np.testing.assert_array_equal(ood_flagged, true_positives)


def test_the_area_below_every_drawn_curve_is_the_recorded_auroc(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"].append("infinite")
    folder = run_suite(toy_suite, tmp_path / "out").folder
    recorded = {
        (f"{r['ood']} ({r['group']})", r["scorer"]): r["metrics"]["auroc"]["value"]
        for r in read_journal(folder)
        if r["kind"] == "score"
    }
    panels = rocs(folder, Choice(sets=["bright", "close", "closer"])).panels
    drawn = {(title, curve.label): curve for title, curves in panels.items() for curve in curves}
    assert drawn.keys() == recorded.keys()
    for key, curve in drawn.items():
        assert curve.auroc == recorded[key]
        assert np.trapezoid(curve.ood_flagged, curve.id_flagged) == pytest.approx(recorded[key], abs=1e-12)


@example([2.225073858507203e-309], 0, 0)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(0, 3), st.integers(0, 3))
def test_densities_are_counts_over_size_and_width_with_infinities_in_the_outermost_bins(
    finite: list[float], below: int, above: int
) -> None:
    edges = shared_edges([np.array(finite), np.array([0.0])], bins=7)
    scores = np.array([*finite, *[-np.inf] * below, *[np.inf] * above])
    expected = np.histogram(finite, edges)[0].astype(float)
    expected[0] += below
    expected[-1] += above
    assert density(scores, edges) * len(scores) * np.diff(edges) == pytest.approx(expected)


def test_bins_span_the_finite_scores_of_all_samples() -> None:
    edges = shared_edges([np.array([-2.0, np.inf]), np.array([5.0, -np.inf])])
    assert len(edges) == BINS + 1
    assert (edges[0], edges[-1]) == (-2.0, 5.0)
    np.testing.assert_allclose(np.diff(edges), 7 / BINS)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e17, 1e-30, 2.225e-309, np.inf])
def test_scores_of_one_value_have_bins_too(value: float) -> None:
    scores = np.full(4, value)
    edges = shared_edges([scores])
    assert (np.diff(edges) > 0).all()
    assert (density(scores, edges) * np.diff(edges)).sum() == pytest.approx(1.0)


def test_histograms_show_the_leading_scorer_on_near_and_far_sets(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["shift"] = [{"name": "shifted", "dataset": "levels", "params": {"offset": 2, "seed": 7}}]
    folder = run_suite(toy_suite, tmp_path / "out").folder
    means = {
        scorer: np.mean(
            [curve.auroc for name in sets for curve in drawn(folder, name) if curve.label == scorer]
        )
        for scorer in ("level", "margin", "from_train")
        for sets in [("close", "closer", "bright", "bright")]  # the mean of the near mean and the far mean
    }
    picture = histograms(folder, Choice())
    ((_, panel),) = picture.panels.items()
    leading = picture.title.removeprefix("toy: network (seed 0), ")
    assert means[leading] == max(means.values())
    assert list(panel.densities) == ["close", "closer", "bright"]
    id_scores, ood_scores = kept_scores(folder, leading, "close")
    np.testing.assert_allclose(panel.id_density, np.histogram(id_scores, panel.edges, density=True)[0])
    np.testing.assert_allclose(
        panel.densities["close"], np.histogram(ood_scores, panel.edges)[0] / 40 / np.diff(panel.edges)
    )


def drawn(folder: Path, name: str) -> list[drawing.Curve]:
    ((_, curves),) = rocs(folder, Choice(sets=[name])).panels.items()
    return list(curves)


def test_shifted_id_is_shown_when_it_is_named(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["shift"] = [{"name": "shifted", "dataset": "levels", "params": {"offset": 2, "seed": 7}}]
    folder = run_suite(toy_suite, tmp_path / "out").folder
    picture = histograms(folder, Choice(sets=["shifted"], scorers=["level", "margin", "level"]))
    assert {scorer: list(panel.densities) for scorer, panel in picture.panels.items()} == {
        "level": ["shifted"],
        "margin": ["shifted"],
    }


def test_a_roc_shows_every_scorer_on_the_first_set_and_equal_scores_once(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"] += [{"name": "level", "sign": 1.0}, {"name": "level", "sign": -1.0}]
    picture = rocs(run_suite(toy_suite, tmp_path / "out").folder, Choice())
    ((title, curves),) = picture.panels.items()
    assert title == "close (near)"  # the board's first: near sets come before far ones
    assert {curve.label for curve in curves} == {
        "from_train",
        "margin",
        "level = level(sign=1.0)",
        "level(sign=-1.0)",
    }
    assert [curve.auroc for curve in curves] == sorted((curve.auroc for curve in curves), reverse=True)


def test_the_suites_first_model_and_its_lowest_seed_are_shown_unless_others_are_named(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["models"] = [
        {"name": "network", "label": "zebra", "seeds": [7, 3]},
        {"name": "network", "label": "ant", "params": {"std": 0.5}, "seeds": [1]},
    ]
    folder = run_suite(toy_suite, tmp_path / "out").folder
    assert rocs(folder, Choice()).title == "toy: zebra (seed 3)"
    assert rocs(folder, Choice(seed=7)).title == "toy: zebra (seed 7)"
    assert rocs(folder, Choice(model="ant")).title == "toy: ant (seed 1)"
    assert scatters(folder, Choice(), TOYS).title.startswith("toy: zebra (seed 3), ")
    with pytest.raises(UnknownNameError, match=r"no seed named '1'\. .*In this run: 3, 7"):
        rocs(folder, Choice(seed=1))


def test_failed_cells_are_left_out_and_named_when_asked_for(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"].append("raises")
    toy_suite["ood"].append({"name": "gone", "dataset": "unreadable", "group": "near"})
    folder = run_suite(toy_suite, tmp_path / "out").folder
    assert "raises" not in {curve.label for curve in drawn(folder, "close")}
    ((_, panel),) = histograms(folder, Choice()).panels.items()
    assert list(panel.densities) == ["close", "closer", "bright"]
    with pytest.raises(
        RecordsError, match="'raises' has no scores on 'close' with network: ZeroDivisionError"
    ):
        histograms(folder, Choice(scorers=["raises"]))
    with pytest.raises(RecordsError, match="has no scores on 'gone' with network: .*'unreadable' is damaged"):
        rocs(folder, Choice(sets=["gone"]))


# Features -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_features_are_those_of_the_runs_cache(ran: Path, toys: Any, method: str) -> None:
    counts = Counts()
    options = FeatureOptions(method=method, device="cpu", plugins=(TOY_PLUGIN,), counts=counts)
    picture = scatters(ran, Choice(), options)
    assert (counts.decoded, counts.forwarded) == (0, 0)
    assert not toys.DECODED
    assert {title: points.shape for title, points in picture.ood_points.items()} == {
        "close (near)": (40, 2),
        "closer (near)": (40, 2),
        "bright (far)": (40, 2),
    }
    np.testing.assert_array_equal(picture.classes, np.arange(40) % 3)


def test_features_that_the_cache_lost_are_gathered_again_as_they_were(ran: Path, tmp_path: Path) -> None:
    before = scatters(ran, Choice(sets=["close"]), TOYS)
    counts = Counts()
    cold = FeatureOptions(cache=tmp_path / "cold", device="cpu", plugins=(TOY_PLUGIN,), counts=counts)
    after = scatters(ran, Choice(sets=["close"]), cold)
    assert (counts.decoded, counts.forwarded) == (80, 80)
    np.testing.assert_array_equal(after.id_points, before.id_points)


def test_features_that_were_kept_beside_layers_are_found(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    plugin = tmp_path / "layered.py"
    plugin.write_text(
        "import harness\n"
        "class Layered:\n"
        "    def score(self, features):\n"
        "        return features.layers['body'].sum(dim=1)\n"
        "@harness.hookimpl\n"
        "def harness_scorers():\n"
        "    yield harness.ScorerSpec('layered', Layered, needs={'layers'})\n"
    )
    toy_suite["scorers"].append("layered")
    folder = run_suite(toy_suite, tmp_path / "out", plugins=(TOY_PLUGIN, plugin)).folder
    counts = Counts()
    options = FeatureOptions(method="pca", device="cpu", plugins=(TOY_PLUGIN, plugin), counts=counts)
    scatters(folder, Choice(), options)
    assert counts.decoded == 0


def test_a_sample_is_drawn_of_large_sets_by_a_fixed_seed(ran: Path) -> None:
    options = FeatureOptions(method="pca", samples=7, device="cpu", plugins=(TOY_PLUGIN,))
    first, second = (scatters(ran, Choice(sets=["close"]), options) for _ in range(2))
    assert len(first.id_points) == len(first.classes) == len(first.ood_points["close (near)"]) == 7
    np.testing.assert_array_equal(first.id_points, second.id_points)


def test_a_limited_run_is_drawn_with_its_limit(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tmp_path / "toy.toml"
    suite.write_text(as_toml(toy_suite))
    call("run", suite, "--plugin", TOY_PLUGIN, "--limit", 10, "--out", "limited", monkeypatch=monkeypatch)
    counts = Counts()
    options = FeatureOptions(method="pca", device="cpu", plugins=(TOY_PLUGIN,), counts=counts)
    assert len(scatters(Path("limited"), Choice(), options).id_points) == 10
    assert counts.decoded == 0


def test_a_model_or_set_that_changed_since_the_run_is_reported(
    ran: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = without_checksum(json.loads((ran / "run.json").read_text()))
    manifest["models"]["network (seed 0)"]["digest"] = manifest["data"]["close"] = "another"
    (ran / "run.json").write_text(json.dumps(manifest))
    scatters(ran, Choice(), FeatureOptions(method="pca", device="cpu", plugins=(TOY_PLUGIN,)))
    assert [record.getMessage() for record in caplog.records] == [
        "network (seed 0) has changed since the run: the picture shows its present state",
        "close has changed since the run: the picture shows its present state",
    ]


def test_pca_finds_the_directions_of_largest_variance() -> None:
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(n, 6)) * [5, 1, 3, 0.5, 0.2, 0.1] for n in (50, 20)]
    joined = np.concatenate(sets)
    left, sizes, _ = np.linalg.svd(joined - joined.mean(axis=0), full_matrices=False)
    points, axes = project(sets, "pca")
    assert [len(of_set) for of_set in points] == [50, 20]
    np.testing.assert_allclose(np.abs(np.concatenate(points)), np.abs(left[:, :2] * sizes[:2]), atol=1e-9)
    assert axes[0] == f"PC 1 ({sizes[0] ** 2 / (sizes**2).sum():.0%} of variance)"


def test_tsne_keeps_clusters_apart_and_is_the_same_every_time() -> None:
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(40, 8)) + 30 * k for k in range(2)]
    (one, other), axes = project(sets, "tsne")
    again, _ = project(sets, "tsne")
    radius = max(np.linalg.norm(points - points.mean(axis=0), axis=1).max() for points in (one, other))
    assert np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) > 2 * radius
    assert axes == ("", "")
    np.testing.assert_array_equal(one, again[0])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((5, 1)), "have one column"),
        (np.ones((5, 3)), "the same for every image"),
        (np.array([[0.0, np.inf], [1.0, 2.0], [0.0, 1.0]]), "are infinite for some images"),
    ],
)
def test_features_without_a_plane_are_refused(features: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        project([features], "tsne")


# Files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", HEADERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_bytes_of_the_format_that_is_named(
    kind: str, suffix: str, fitting: Path, tmp_path: Path
) -> None:
    options = FeatureOptions(
        method="pca" if kind == "features2d" else None, device="cpu", plugins=(TOY_PLUGIN,)
    )
    contents = []
    for name, size in (("first", 8.0), ("second", 20.0)):
        with mpl.rc_context({"font.size": size, "axes.grid": True}):  # a reader's own settings do not enter
            draw(kind, fitting, tmp_path / f"{name}{suffix}", Choice(), options=options)
            assert mpl.rcParams["font.size"] == size
        contents.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert contents[0].startswith(HEADERS[suffix])
    assert contents[0] == contents[1]
    assert len(contents[0]) > 5000


@pytest.mark.parametrize("suffix", HEADERS)
def test_another_process_draws_the_same_bytes(suffix: str, ran: Path, tmp_path: Path) -> None:
    draw("roc", ran, tmp_path / f"here{suffix}", Choice())
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "plot",
        "roc",
        str(ran),
        "-o",
        str(tmp_path / f"there{suffix}"),
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "123"})
    assert (tmp_path / f"here{suffix}").read_bytes() == (tmp_path / f"there{suffix}").read_bytes()


@pytest.mark.parametrize("kind", ["hist", "roc"])
def test_a_logarithmic_axis_draws_another_picture(kind: str, ran: Path, tmp_path: Path) -> None:
    for name, log in (("plain.png", False), ("log.png", True)):
        draw(kind, ran, tmp_path / name, Choice(), log=log)
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "log.png").read_bytes()


def test_a_curve_of_one_step_has_a_logarithmic_axis_too(tmp_path: Path) -> None:
    curve = drawing.Curve("tied", 0.5, np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    drawing.write(drawing.RocPanels("one", {"set": [curve]}, log=True), tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(HEADERS[".png"])


def test_many_classes_and_panels_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sets = {f"set {number} of $5": rng.normal(size=(5, 2)) for number in range(5)}
    picture = drawing.Scatters("many", rng.normal(size=(90, 2)), np.arange(90) % 30, sets, ("one", "two"))
    drawing.write(picture, tmp_path / "many.SVG")
    assert (tmp_path / "many.SVG").read_bytes().startswith(HEADERS[".svg"])


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(ran: Path, tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(
        InputError, match="taken.png' cannot be written: Is a directory. Name another with -o"
    ):
        draw("hist", ran, tmp_path / "taken.png", Choice())
    assert not list(tmp_path.glob(".taken*"))


def test_the_command_says_what_it_drew_and_takes_every_option(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plot", "features2d", ran, "-o", "out.svg", "--plugin", TOY_PLUGIN, "--device", "cpu"]
    chosen = ["--method", "pca", "--samples", 5, "--set", "close", "--model", "network", "--seed", 0]
    assert call(*arguments, *chosen, monkeypatch=monkeypatch) == 0
    assert "out.svg: toy: network (seed 0), PCA of penultimate features" in capfd.readouterr().err
    scores = ["plot", "hist", ran, "-o", "out.png", "--scorer", "level", "--scorer", "margin", "--log"]
    assert call(*scores, monkeypatch=monkeypatch) == 0
    assert Path("out.png").read_bytes().startswith(HEADERS[".png"])


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hits", "out", "-o", "a.png"], "no kind of picture named 'hits'. Did you mean 'hist'? Valid:"),
        (["hist", "out", "-o", "a.jpg"], "no picture format named '.jpg'. Did you mean '.png'? Valid: .pdf"),
        (["hist", "out", "-o", "picture"], "no picture format named 'picture'. Valid: .pdf, .png, .svg"),
        (["hist", "out", "-o", "absent/a.png"], "the folder 'absent' of the picture does not exist"),
        (["hist", "absent", "-o", "a.png"], "'absent' is no run's folder"),
        (
            ["roc", "out", "-o", "a.png", "--model", "netwrk"],
            "no model named 'netwrk'. Did you mean 'network'?",
        ),
        (["roc", "out", "-o", "a.png", "--seed", "5"], "no seed named '5'. In this run: 0"),
        (
            ["roc", "out", "-o", "a.png", "--scorer", "marign"],
            "no scorer named 'marign'. Did you mean 'margin'?",
        ),
        (["roc", "out", "-o", "a.png", "--set", "clos"], "no set named 'clos'. Did you mean 'close'?"),
        (["roc", "out", "-o", "a.png", "--method", "pca"], "--method does not apply to roc"),
        (["hist", "out", "-o", "a.png", "--samples", "9"], "--samples does not apply to hist"),
        (["features2d", "out", "-o", "a.png", "--log"], "--log does not apply to features2d"),
        (["features2d", "out", "-o", "a.png", "--scorer", "level"], "--scorer does not apply to features2d"),
        (["features2d", "absent", "-o", "a.png"], "'absent' is no run's folder"),
        (
            ["features2d", "out", "-o", "a.png", "--method", "umap"],
            "no method named 'umap'. Valid: pca, tsne",
        ),
        (["features2d", "out", "-o", "a.png", "--samples", "2"], "--samples 2 is too few for a plane"),
        (["features2d", "out", "-o", "a.png"], "no plugin offers 'levels'"),  # without its plugin
        (
            ["features2d", "out", "-o", "a.png", "--plugin", TOY_PLUGIN, "--set", "clos"],
            "no set named 'clos'",
        ),
        (["features2d", "out", "-o", "a.png", "--plugin", TOY_PLUGIN, "--model", "x"], "no model named 'x'"),
        (["features2d", "out", "-o", "a.png", "--plugin", TOY_PLUGIN, "--seed", "4"], "no seed named '4'"),
        (
            ["features2d", "out", "-o", "a.png", "--plugin", TOY_PLUGIN, "--device", "cuda:99"],
            "'cuda:99' is not",
        ),
    ],
)
def test_bad_input_is_one_line_and_exits_2(
    arguments: list[object],
    message: str,
    ran: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert call("plot", *arguments, monkeypatch=monkeypatch) == 2
    error = capfd.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("a.png").exists()


def test_scores_that_are_gone_are_named_with_the_run_that_makes_them_again_and_nothing_is_created(
    ran: Path, tmp_path: Path
) -> None:
    shutil.rmtree(ran / "scores")
    with pytest.raises(RecordsError, match=r"are gone; .*: ood-harness run toy --out NEW"):
        draw("hist", ran, tmp_path / "a.png", Choice())
    assert not (ran / "scores").exists()


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-8] + bytes(8)])
def test_damaged_scores_are_not_drawn(damage: Callable[[bytes], bytes], ran: Path, tmp_path: Path) -> None:
    for path in (ran / "scores").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordsError, match="are damaged"):
        draw("roc", ran, tmp_path / "a.png", Choice())


def test_a_damaged_manifest_is_named(ran: Path, tmp_path: Path) -> None:
    (ran / "run.json").write_text("{")
    with pytest.raises(RecordsError, match="run.json is damaged"):
        draw("features2d", ran, tmp_path / "a.png", Choice(), options=TOYS)


def test_a_model_that_raises_is_one_line(ran: Path, tmp_path: Path) -> None:
    broken = tmp_path / "toy_plugin.py"
    raising = "    raise OSError('gone')\n    model = Network("
    broken.write_text(TOY_PLUGIN.read_text().replace("    model = Network(", raising))
    with pytest.raises(Exception, match=r"^model 'network': OSError: gone$"):
        scatters(ran, Choice(), FeatureOptions(device="cpu", plugins=(broken,)))
