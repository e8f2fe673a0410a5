"""What invalidates what (docs/cache.md): each input is changed in turn, and the right keys change and no others."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import TOY_PLUGIN

from harness.base import digests
from harness.base.cache import Cache
from harness.contract.registry import Registry
from harness.contract.specs import ModelRequest
from harness.data.streams import Stream
from harness.engine.fits import Fits, Means
from harness.engine.plan import make_plan
from harness.engine.runner import RunOptions, _Run
from harness.engine.suite import parse_suite
from harness.evaluations.scores.unit import Unit
from harness.models import loaded as loaded_models
from harness.models.loaded import LoadedModel

FEATURES = {"id", "train", "ood"}
CELLS = {"cell:level", "cell:from_train"}


@dataclass
class Inputs:
    """Everything that a number depends on, in its initial state."""

    suite: dict[str, Any]
    weights: float = 0.0
    plugin_text: str = ""


def keys(inputs: Inputs, folder: Path) -> dict[str, str]:
    """Compute the feature keys of three streams and the code ids of two cells, as a run would."""
    plugin = folder / "toy_plugin.py"
    plugin.write_text(TOY_PLUGIN.read_text() + inputs.plugin_text)
    registry = Registry.load([plugin])
    plan = make_plan(parse_suite(inputs.suite, source="toy.toml"), registry)
    run = _Run(plan, registry, RunOptions(out=folder / "out", device="cpu"))
    (planned,) = plan.models
    built = planned.offered.spec.build(ModelRequest(name="network", seed=planned.seed), **planned.params)
    with torch.no_grad():
        built.classifier.fc.bias += inputs.weights
    loaded = LoadedModel(built, "cpu", plan.suite.dtype, planned.offered.source)
    means: Any = Means(run.recorder, Cache(folder / "cache"), run.counts, clock=None)  # type: ignore[arg-type]
    unit = Unit(planned, Fits(planned.label, loaded, means))
    train = run.id_data.train
    assert train is not None
    return {
        "id": unit._features_key("id", layers=False),
        "ood": unit._features_key("close", layers=False),
        "train": loaded.features_key(Stream.of(train, batch_size=plan.suite.batch_size), layers=False),
        "cell:level": unit._code_ids["close", "level"],
        "cell:from_train": unit._code_ids["close", "from_train"],
    }


def change(path: str, value: Any) -> Callable[[Inputs], None]:
    def apply(inputs: Inputs) -> None:
        place: Any = inputs.suite
        *parents, last = path.split(".")
        for parent in parents:
            place = place[int(parent)] if parent.isdigit() else place[parent]
        place[last] = value

    return apply


def set_weights(inputs: Inputs) -> None:
    inputs.weights = 0.5


def edit_plugin(inputs: Inputs) -> None:
    inputs.plugin_text = "\nEDITED = True\n"


TABLE: dict[str, tuple[Callable[[Inputs], None], set[str]]] = {
    "weights": (set_weights, FEATURES | CELLS),
    "preprocessing": (change("models.0.params", {"std": 0.5}), FEATURES | CELLS),
    "the model's seed, where it changes the weights": (change("models.0.seeds", [1]), FEATURES | CELLS),
    "dtype": (change("dtype", "bfloat16"), FEATURES | CELLS),
    "batch size": (change("batch_size", 8), FEATURES | CELLS),
    "selection of ID test": (change("id.test.limit", 20), {"id"} | CELLS),
    "selection of ID train": (change("id.train.limit", 20), {"train", "cell:from_train"}),
    "selection of ID validation": (change("id.validation.limit", 20), set()),
    "the OOD set's data": (change("ood.1.params", {"offset": 16, "seed": 5}), {"ood"} | CELLS),
    "selection of the OOD set": (change("ood.1.limit", 20), {"ood"} | CELLS),
    "another OOD set": (change("ood.0.limit", 20), set()),
    "the OOD set's group": (change("ood.1.group", "far"), set()),
    "what the board shows": (change("fpr", "ood"), set()),
    "another scorer joins": (change("scorers", ["level", "margin", "from_train", "infinite"]), set()),
    "the plugin's source": (edit_plugin, FEATURES | CELLS),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_changed_input_changes_its_keys_and_no_others(
    name: str, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    apply, expected = TABLE[name]
    inputs = Inputs(copy.deepcopy(toy_suite))
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    before = keys(inputs, tmp_path / "before")
    apply(inputs)
    after = keys(inputs, tmp_path / "after")

    assert {key for key in before if before[key] != after[key]} == expected


def test_a_scorers_parameters_change_its_own_cell(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    common: dict[str, Any] = {
        "id_features": "a", "ood_features": "b", "fit": {}, "scorer": "level", "params": {"sign": 1.0},
        "source": "s", "version": "1", "libraries": {"torch": "2"},
    }  # fmt: skip
    changes = [
        {"id_features": "c"}, {"ood_features": "c"}, {"fit": {"train": "t"}}, {"scorer": "other"},
        {"params": {"sign": 2.0}}, {"source": "edited"}, {"version": "2"}, {"libraries": {"torch": "3"}},
    ]  # fmt: skip
    found = {digests.code_id(**(common | changed)) for changed in changes} | {digests.code_id(**common)}
    assert len(found) == len(changes) + 1


def test_a_librarys_version_changes_every_key(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    before = keys(Inputs(toy_suite), tmp_path / "before")
    newer = {"torch": "99", "torchvision": "99", "timm": "99"}
    monkeypatch.setattr(loaded_models, "libraries", lambda: newer)
    after = keys(Inputs(toy_suite), tmp_path / "after")
    assert all(before[key] != after[key] for key in before)


def test_an_adapter_changes_the_features() -> None:
    common: dict[str, Any] = {
        "model": "m", "preprocessing": {}, "stream": "s", "dtype": "float32", "fields": ["logits"], "libraries": {},
    }  # fmt: skip
    source = digests.features_key(adapter={"name": "source"}, **common)
    assert digests.features_key(adapter={"name": "source", "rate": 1e-3}, **common) != source


def test_only_the_order_of_a_mixture_depends_on_its_seed(toys: Any) -> None:
    from harness.contract.selection import Selection

    one, two = (Selection.all_of(str(seed), toys.Levels(10, 2, seed, 0, 4)) for seed in (1, 2))
    mixed = [Stream.mixed([one, two], batch_size=4, seed=seed) for seed in (0, 0, 1)]
    assert mixed[0].digest == mixed[1].digest != mixed[2].digest
    assert sorted(zip(mixed[0].origin, mixed[0].position, strict=True)) == sorted(
        zip(mixed[2].origin, mixed[2].position, strict=True)
    )


def test_an_edit_in_an_imported_module_of_the_package_counts_and_one_elsewhere_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "edited_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "entry.py").write_text(
        "from edited_package.helper import help\n\ndef build():\n    return help()\n"
    )
    (package / "helper.py").write_text("def help():\n    from . import deeper\n    return deeper.VALUE\n")
    (package / "deeper.py").write_text("VALUE = 1\n")
    (package / "unrelated.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import edited_package.entry  # type: ignore[import-not-found]

    build = edited_package.entry.build
    sys.modules.pop("edited_package.helper")
    before = digests.source_digest(build)
    assert "edited_package.helper" not in sys.modules  # the imports are read, not run
    (package / "unrelated.py").write_text("VALUE = 2\n")
    assert digests.source_digest(build) == before
    (package / "deeper.py").write_text("VALUE = 2\n")
    assert digests.source_digest(build) != before
    for name in [name for name in sys.modules if name.startswith("edited_package")]:
        del sys.modules[name]


@given(
    st.dictionaries(
        st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.booleans()), max_size=4
    )
)
def test_a_digest_does_not_depend_on_the_order_of_keys(content: dict[str, Any]) -> None:
    reversed_content = dict(reversed(content.items()))
    assert digests.digest(content) == digests.digest(reversed_content)


def test_a_models_digest_sees_weights_and_architecture() -> None:
    torch.manual_seed(0)
    one = torch.nn.Linear(2, 2)
    same, moved = copy.deepcopy(one), copy.deepcopy(one)
    with torch.no_grad():
        moved.bias[0] += 1e-7
    wrapped = torch.nn.Sequential(one)
    assert digests.model_digest(one, "") == digests.model_digest(same, "")
    assert (
        len({digests.model_digest(m, "") for m in (one, moved, wrapped)} | {digests.model_digest(one, "x")})
        == 4
    )


def test_equal_arrays_of_other_type_or_shape_differ() -> None:
    array = np.arange(6)
    shapes = {
        digests.array_digest(a)
        for a in (array, array.reshape(2, 3), array.astype("<i4"), array.astype(float))
    }
    assert len(shapes) == 4
    assert digests.array_digest(array) == digests.array_digest(array.copy())


def test_the_initial_state_is_the_same_twice(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    inputs = Inputs(toy_suite)
    assert keys(inputs, tmp_path / "one") == keys(replace(inputs), tmp_path / "two")
