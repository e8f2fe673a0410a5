"""What invalidates what (docs/cache.md): each input is changed in turn, and the right keys change and no others."""

from __future__ import annotations

import copy
import itertools
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

from harness.base import code as code_digests
from harness.base import digests
from harness.base.cache import Cache
from harness.contract.registry import Registry
from harness.contract.specs import ModelRequest
from harness.data.streams import Stream
from harness.engine.clock import Clock
from harness.engine.evaluation import Job
from harness.engine.runner import Run, RunOptions
from harness.engine.sets import OpenSets
from harness.engine.workbench import Workbench
from harness.evaluations import KINDS
from harness.evaluations.run import plan_suite
from harness.evaluations.scores.scoring import Scoring
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
    plan = plan_suite(inputs.suite, registry, source="toy.toml")
    run = Run(plan, RunOptions(out=folder / "out", device="cpu"), KINDS)
    (planned,) = plan.models
    built = planned.offered.spec.build(ModelRequest(name="network", seed=planned.seed), **planned.params)
    with torch.no_grad():
        built.classifier.fc.bias += inputs.weights
    loaded = LoadedModel(built, "cpu", plan.suite.dtype, planned.offered.source)
    data = run.sets.id_data
    train = data.train
    assert train is not None
    size = plan.suite.batch_size
    bench = Workbench(
        planned.label, loaded, {"train": train}, size, Cache(folder / "cache"), run.loader.counts, Clock()
    )
    scoring = Scoring(Job(plan, planned, bench, run.sets, run.folder))
    return {
        "id": loaded.features_key(run.sets.stream("id"), layers=False),
        "ood": loaded.features_key(run.sets.stream("close"), layers=False),
        "train": loaded.features_key(Stream.of(train, batch_size=size), layers=False),
        **{f"cell:{name}": scoring.key(scoring.cells["close", name]) for name in ("level", "from_train")},
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


def comment_on_plugin(inputs: Inputs) -> None:
    inputs.plugin_text = "\n# A better comment.\n"


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
    "a comment in the plugin": (comment_on_plugin, set()),
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


def test_a_workers_key_follows_its_inputs_parameters_data_and_code(toy_suite: dict[str, Any]) -> None:
    plan = plan_suite(toy_suite, Registry.load([TOY_PLUGIN]), source="toy.toml")
    unused: Any = None
    job = Job(plan, plan.models[0], unused, OpenSets(plan), unused)
    worker = plan.named("scorers")[0]
    spec, offered = worker.offered.spec, worker.offered
    others = [
        replace(worker, params={"sign": 2.0}),
        replace(worker, offered=replace(offered, version="99")),
        replace(worker, offered=replace(offered, spec=replace(spec, name="other"))),
        replace(worker, offered=replace(offered, spec=replace(spec, needs={"logits", "train"}))),
        replace(worker, offered=replace(offered, spec=replace(spec, build=lambda: None))),
    ]
    found = [job.key(worker, "features"), job.key(worker, "other features")]
    found += [job.key(other, "features") for other in others]
    assert len(set(found)) == len(found)
    assert job.key(replace(worker, label="renamed"), "features") == found[0]


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
    before = code_digests.source_digest(build)
    assert "edited_package.helper" not in sys.modules  # the imports are read, not run
    (package / "unrelated.py").write_text("VALUE = 2\n")
    assert code_digests.source_digest(build) == before
    (package / "deeper.py").write_text("VALUE = 2\n")
    assert code_digests.source_digest(build) != before
    for name in [name for name in sys.modules if name.startswith("edited_package")]:
        del sys.modules[name]


CODE = '''"""A module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT: int = 3  # at most


@dataclass
class Options:
    """Options of the scorer."""

    width: int = 4


class Empty:
    """Nothing."""


def nothing() -> None:
    """Do nothing."""


def score(values: Sequence[float], *rest: float, scale: float = 1.0, **names: float) -> float:
    """Score the values."""
    import random

    total: float = mean(values) + median(values)
    if total > LIMIT:
        import random
    return math.sqrt(total) * scale + random.random()


try:
    import tomllib as toml
except ImportError:
    import json as toml
'''

TYPOGRAPHY = {
    "a comment": ("# at most", "# an upper limit"),
    "a comment on its own line": ("@dataclass\n", "# Read from the suite.\n@dataclass\n"),
    "a module's docstring": ("A module.", "A better module."),
    "no module docstring": ('"""A module."""\n', ""),
    "a class's docstring": ("Options of the scorer.", "What the scorer can do."),
    "a function's docstring": ("Score the values.", "Score them."),
    "no function docstring": ('    """Score the values."""\n', ""),
    "a body that was a docstring": ('    """Do nothing."""\n', "    pass\n"),
    "a class that was a docstring": ('    """Nothing."""\n', "    pass\n"),
    "layout": ("math.sqrt(total) * scale", "(\n        math.sqrt(total)  * scale\n    )"),
    "other quotes": ('"""Nothing."""', "'Nothing.'"),
    "an import's place": (
        "import math\nfrom dataclasses import dataclass\n",
        "from dataclasses import dataclass\nimport math\n",
    ),
    "an import moved into a function": (
        "import math\nfrom dataclasses",
        "from dataclasses",
        "    import random\n\n",
        "    import math\n    import random\n\n",
    ),
    "an import over several lines": ("import mean, median", "import (\n    median,\n    mean,\n)"),
    "an import split in two": ("import mean, median", "import mean\nfrom statistics import median"),
    "an import that stands twice": ("\n        import random\n", "\n        pass\n"),
    "an argument's annotation": ("values: Sequence[float]", "values: list[float]"),
    "no annotation": ("*rest: float", "*rest", "**names: float", "**names"),
    "a returned annotation": (") -> float:", ") -> complex:"),
    "a local annotation": ("total: float =", "total ="),
    "a bare local annotation": ("    import random\n\n", "    import random\n\n    later: float\n"),
    "a module-level annotation": ("LIMIT: int =", "LIMIT: float ="),
    "an import for type checkers": (
        "    from collections.abc import Sequence",
        "    from typing import Sequence, Any",
    ),
    "another way to write TYPE_CHECKING": ("if TYPE_CHECKING:", "if typing.TYPE_CHECKING:"),
    "nothing for type checkers": (
        "from typing import TYPE_CHECKING\n",
        "",
        "if TYPE_CHECKING:\n    from collections.abc import Sequence\n",
        "",
    ),
    "another branch at run time": ("import Sequence\n", "import Sequence\nelse:\n    import math\n"),
}

SUBSTANCE = {
    "a constant": ("LIMIT: int = 3", "LIMIT: int = 4"),
    "a constant's type": ("LIMIT: int = 3", "LIMIT: int = 3.0"),
    "a default": ("scale: float = 1.0", "scale: float = 2.0"),
    "an operator": ("* scale", "/ scale"),
    "the default of a field": ("width: int = 4", "width: int = 5"),
    "the annotation of a field": ("width: int = 4", "width: float = 4"),
    "a field's name": ("width: int", "depth: int"),
    "a field that is none": ("width: int = 4", "width = 4"),
    "a decorator": ("@dataclass\n", "@dataclass(frozen=True)\n"),
    "the order of statements": (
        "LIMIT: int = 3  # at most\n",
        "",
        "    total: float",
        "    LIMIT = 3\n    total: float",
    ),
    "the module of a name": ("from statistics import mean, median", "from numpy import mean, median"),
    "the module of one name": (
        "from statistics import mean, median",
        "from statistics import mean\nfrom numpy import median",
    ),
    "a module under the same name": ("import math\n", "import cmath as math\n"),
    "a name under the same name": ("import mean, median", "import mean, mode as median"),
    "names that change places": ("import mean, median", "import mean as median, median as mean"),
    "an import's depth": ("from statistics import", "from .statistics import"),
    "an import in a function": ("    import random\n\n", "    import secrets as random\n\n"),
    "which import is tried first": (
        "tomllib as toml",
        "X as toml",
        "json as toml",
        "tomllib as toml",
        "X as toml",
        "json as toml",
    ),
    "a branch at run time": ("import Sequence\n", "import Sequence\nelse:\n    Sequence = list\n"),
    "a string that is read": ("LIMIT: int = 3", "LIMIT: int = 'at most'"),
    "an index": ("values) + median", "values[0]) + median"),
}


def edited(code: str, *changes: str) -> str:
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in code
        code = code.replace(old, new, 1)
    return code


def of_code(folder: Path, code: str) -> str:
    path = folder / "code.py"
    path.write_text(code)
    return code_digests.code_digest(path)


@pytest.mark.parametrize("name", TYPOGRAPHY)
def test_what_does_nothing_at_run_time_does_not_count(name: str, tmp_path: Path) -> None:
    changed = edited(CODE, *TYPOGRAPHY[name])
    assert changed != CODE
    assert of_code(tmp_path, changed) == of_code(tmp_path, CODE)


@pytest.mark.parametrize("name", SUBSTANCE)
def test_what_does_something_at_run_time_counts(name: str, tmp_path: Path) -> None:
    assert of_code(tmp_path, edited(CODE, *SUBSTANCE[name])) != of_code(tmp_path, CODE)


def test_two_functions_that_swap_their_imports_count(tmp_path: Path) -> None:
    code = (
        "def one():\n    from {} import f\n    return f\n\ndef two():\n    from {} import f\n    return f\n"
    )
    assert of_code(tmp_path, code.format("a", "b")) != of_code(tmp_path, code.format("b", "a"))


def test_the_place_of_a_star_import_counts(tmp_path: Path) -> None:
    lines = ["from a import *\n", "from b import *\n", "x = 1\n"]
    found = {of_code(tmp_path, "".join(order)) for order in itertools.permutations(lines)}
    assert len(found) == 6


@pytest.mark.parametrize("suffix", [".py", ".txt"])
def test_what_is_not_python_counts_by_its_bytes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"code{suffix}"
    path.write_text("def (:  # a comment")
    before = code_digests.code_digest(path)
    assert before == code_digests.file_digest(path)
    path.write_text("def (:  # another comment")
    assert code_digests.code_digest(path) != before


def test_code_may_be_deep(tmp_path: Path) -> None:
    code = "x = " + " + ".join(["1"] * 900)
    assert of_code(tmp_path, code) == of_code(tmp_path, f"{code}  # a sum")
    assert of_code(tmp_path, code) != of_code(tmp_path, f"{code} + 1")


def test_a_module_imported_for_type_checkers_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "typed_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "entry.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from typed_package.types import Kind\n"
        "else:\n    from typed_package import used\n\ndef build():\n    return 1\n"
    )
    for name in ("types", "used"):
        (package / f"{name}.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import typed_package.entry  # type: ignore[import-not-found]

    build = typed_package.entry.build
    before = code_digests.source_digest(build)
    (package / "types.py").write_text("VALUE = 2\n")
    assert code_digests.source_digest(build) == before
    (package / "used.py").write_text("VALUE = 1  # one\n")
    assert code_digests.source_digest(build) == before
    (package / "used.py").write_text("VALUE = 2\n")
    assert code_digests.source_digest(build) != before
    for name in [name for name in sys.modules if name.startswith("typed_package")]:
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
