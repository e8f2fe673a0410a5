"""A path is a path: beside the suite's file, then in the working folder, then under the data root, then on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import TOY_PLUGIN, as_toml

from harness.base.errors import DatasetError, UnknownNameError
from harness.contract.registry import Registry
from harness.data.naming import full_name
from harness.engine.sets import OpenSets
from harness.evaluations.run import prepare


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load([TOY_PLUGIN])


def photos(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((4, 4), 10 * number, dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The three places, in the order in which they are searched."""
    found = [tmp_path / name for name in ("beside", "working", "root")]
    for number, place in enumerate(found):
        photos(place / "photos", number + 1)
    monkeypatch.chdir(found[1])
    monkeypatch.setenv("OOD_HARNESS_DATA", str(found[2]))
    return found


def test_places_are_searched_in_order(places: list[Path], registry: Registry) -> None:
    for place in places:
        assert full_name("photos", registry, places[0]) == f"hf:{place / 'photos'}"
        for file in (place / "photos").iterdir():
            file.unlink()
        (place / "photos").rmdir()
    assert full_name("photos", registry, places[0]) == "hf:photos"  # a hub id


def test_a_plugins_name_goes_first_and_a_prefix_stays(places: list[Path], registry: Registry) -> None:
    (places[0] / "levels").mkdir()
    assert full_name("levels", registry, places[0]) == "levels"
    assert full_name("hf:photos", registry, places[0]) == "hf:photos"
    assert full_name(str(places[2] / "photos"), registry, None) == f"hf:{places[2] / 'photos'}"
    assert full_name("./photos", registry, places[0]) == f"hf:{places[0] / 'photos'}"


def test_a_name_like_a_plugins_is_a_mistake(places: list[Path], registry: Registry) -> None:
    with pytest.raises(UnknownNameError, match="no dataset named 'levles'. Did you mean 'levels'"):
        full_name("levles", registry, places[0])


def test_no_name_leads_out_of_the_data_root(
    places: list[Path], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(places[2].parent / "secret", 1)  # ../secret as seen from the root
    (places[1] / "deep").mkdir()
    monkeypatch.chdir(places[1] / "deep")
    assert full_name("../secret", registry, None) == "hf:../secret"


def test_a_suites_paths_start_at_its_file(
    places: list[Path], toy_suite: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ood = [{"name": "own", "dataset": "photos", "group": "far"}]
    rest = {key: value for key, value in toy_suite.items() if key not in ("ood", "models")}
    text = as_toml(rest) + '\n[[models]]\nname = "network"\n'
    text += "".join(f"\n[[ood]]\n{as_toml(entry)}\n" for entry in ood)
    (places[0] / "mine.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    plan = prepare("beside/mine.toml", plugins=[TOY_PLUGIN])
    assert len(OpenSets(plan).selection("own")) == 1
    assert plan.sets[0].dataset == "photos"  # the suite's digest does not depend on the place


def test_what_is_nowhere_says_so(
    places: list[Path], toy_suite: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    toy_suite["ood"] = [{"name": "own", "dataset": "snapshots", "group": "far"}]
    from harness.evaluations.run import plan_suite

    plan = plan_suite(toy_suite, Registry.load([TOY_PLUGIN]), source="toy.toml", folder=places[0])
    with pytest.raises(
        DatasetError, match="set own: no plugin offers 'snapshots', and no dataset 'hf:snapshots'"
    ):
        OpenSets(plan).selection("own")
