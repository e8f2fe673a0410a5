from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import torch

import harness
from harness.models.loaded import LoadedModel
from harness_plugins.models.modules import build_module

if TYPE_CHECKING:
    from pathlib import Path

STATED = {"size": (8, 8), "mean": (0.2,), "std": (0.3,), "interpolation": "bicubic", "crop_pct": 1.0}
CODE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, width=5):
            super().__init__()
            self.first = nn.Linear(64, width)
            self.norm = nn.BatchNorm1d(width)
            self.last = nn.Linear(width, 3)
            self.scale = 1.0

        def forward(self, images):
            features = self.norm(self.first(images.flatten(1))).relu()
            return self.scale * self.last(features)

    def build():
        return Net()

    def scaled():
        net = Net()
        net.scale = 2.5
        return net

    class Pair(Net):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(5, 3)

        def forward(self, images):
            features = self.norm(self.first(images.flatten(1))).relu()
            return (self.last(features) + self.other(features)) / 2

    class Convolved(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(1, 6, 3)
            self.classifier = nn.Conv2d(6, 3, 1)

        def forward(self, images):
            return self.classifier(self.body(images).mean((2, 3), keepdim=True)).flatten(1)

    class NoHead(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)).expand(-1, 3)

    class Configured(Net):
        pretrained_cfg = {"input_size": (1, 8, 8), "mean": (0.4,), "std": (0.5,), "interpolation": "bilinear",
                          "crop_pct": 0.9}

    def seeded(seed):
        torch.manual_seed(seed)
        return Net()

    def number():
        return 3

    def twice():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Unflatten(1, (1, 3)))

    def broken():
        raise RuntimeError("no weights")

    ready = Net()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_models.py"
    path.write_text(textwrap.dedent(CODE))
    return path


def built(
    argument: str, *, stated: dict[str, Any] | None = None, seed: int = 0, **params: Any
) -> harness.Model:
    given = STATED if stated is None else stated
    request = harness.ModelRequest(f"module:{argument}", argument=argument, preprocessing=given, seed=seed)
    return build_module(request, **params)


def outputs(model: harness.Model) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Penultimate features and logits by the interface, and logits by the module itself."""
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    classifier: Any = model.classifier
    with torch.no_grad():
        features = classifier.forward_features(images)
        penultimate, logits = (
            classifier.forward_head(features, pre_logits=True),
            classifier.forward_head(features),
        )
        return penultimate, logits, classifier.network(images)


@pytest.mark.parametrize("name", ["build", "Net", "ready", "scaled"])
def test_logits_are_the_modules_own_and_features_the_input_of_its_last_linear_layer(
    file: Path, name: str
) -> None:
    model = built(f"{file}:{name}")
    penultimate, logits, own = outputs(model)
    network: Any = model.classifier.network  # type: ignore[attr-defined]
    assert torch.equal(logits, own)
    assert penultimate.shape == (4, 5)
    torch.testing.assert_close(network.scale * network.last(penultimate), own)
    assert model.num_classes == 3
    assert model.preprocessing == harness.Preprocessing((1, 8, 8), (0.2,), (0.3,), interpolation="bicubic")
    offers = LoadedModel(model, "cpu").offers
    assert {"logits", "penultimate"} <= offers
    assert ("linear" in offers) == (network.scale == 1.0)  # the layer alone does not give scaled logits


def test_a_convolution_of_one_pixel_is_a_head(file: Path) -> None:
    model = built(f"{file}:Convolved")
    penultimate, logits, own = outputs(model)
    assert torch.equal(logits, own)
    assert penultimate.shape == (4, 6)
    assert "linear" in LoadedModel(model, "cpu").offers


def test_a_head_that_is_not_clear_is_named_by_the_user(file: Path) -> None:
    with pytest.raises(
        harness.InputError, match=r"several linear layers may give the 3 logits.*last, other.*head = "
    ):
        built(f"{file}:Pair")
    model = built(f"{file}:Pair", head="last")
    penultimate, logits, own = outputs(model)
    assert torch.equal(logits, own)
    assert penultimate.shape == (4, 5)
    assert "head" not in LoadedModel(model, "cpu").offers
    message = r"no layer named 'lst'. Did you mean 'last'\? Linear layers: first, last, other"
    with pytest.raises(harness.HarnessError, match=message):
        built(f"{file}:Pair", head="lst")


def test_the_key_of_features_depends_on_the_head_the_weights_and_the_code(file: Path) -> None:
    def digest(name: str, **params: Any) -> str:
        return LoadedModel(built(f"{file}:{name}", **params), "cpu").digest

    first = digest("build")
    assert digest("build") == first
    heads = {digest("Pair", head="last"), digest("Pair", head="other")}
    assert len({first, digest("seeded", seed=1), digest("seeded", seed=2), digest("scaled"), *heads}) == 6
    file.write_text(file.read_text().replace(".relu()", ".tanh()"))
    assert digest("build") != first


def test_code_beside_the_file_is_imported_and_counts(tmp_path: Path) -> None:
    (tmp_path / "layers_beside.py").write_text("def squash(x):\n    return x.relu()\n")
    code = textwrap.dedent(CODE).replace(".relu()", "").replace(
        "import torch\n", "import torch\nfrom layers_beside import squash\n", 1
    )  # fmt: skip
    (tmp_path / "mine.py").write_text(code)
    before = built(f"{tmp_path / 'mine.py'}:build").source
    (tmp_path / "layers_beside.py").write_text("def squash(x):\n    return x.tanh()\n")
    assert built(f"{tmp_path / 'mine.py'}:build").source != before


def test_a_module_of_a_package_beside_the_suite_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "suites" / "networks_of_mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "small.py").write_text(textwrap.dedent(CODE))
    argument = "networks_of_mine.small:build"
    request = harness.ModelRequest(
        f"module:{argument}", argument=argument, preprocessing=STATED, folder=tmp_path / "suites"
    )
    assert build_module(request).num_classes == 3


def test_a_file_beside_the_suite_comes_before_one_in_the_working_folder(file: Path, tmp_path: Path) -> None:
    beside = tmp_path / "suites"
    beside.mkdir()
    (beside / "my_models.py").write_text(textwrap.dedent(CODE).replace("width, 3)", "width, 4)"))
    argument = "my_models.py:build"
    for folder, classes in ((beside, 4), (tmp_path / "elsewhere", 3), (None, 3)):
        request = harness.ModelRequest("module", argument=argument, preprocessing=STATED, folder=folder)
        assert build_module(request).num_classes == classes


def test_preprocessing_is_the_modules_own_unless_the_suite_states_it(file: Path) -> None:
    own = built(f"{file}:Configured", stated={}).preprocessing
    assert own == harness.Preprocessing((1, 8, 8), (0.4,), (0.5,), crop_pct=0.9)
    assert own.source == "its pretrained_cfg"
    part = built(f"{file}:build", stated={"size": (8, 8), "mean": (0.2,), "std": (0.3,)}).preprocessing
    assert part.assumed == ("interpolation", "crop_pct")


@pytest.mark.parametrize(
    ("argument", "stated", "message"),
    [
        ("my_models.py", STATED, "names no function. Write module = "),
        ("absent.py:build", STATED, "there is no file 'absent.py' in"),
        ("my_models.py:biuld", STATED, "no function named 'biuld'. Did you mean 'build'?"),
        ("no_such_package.code:build", STATED, "raised ModuleNotFoundError: No module named 'no_such_package'"),
        ("my_models.py:number", STATED, "returns a int. Return a torch module"),
        ("my_models.py:broken", STATED, "raised RuntimeError: no weights"),
        ("my_models.py:twice", STATED, "gives a Tensor of shape (2, 1, 3) for 2 images"),
        ("my_models.py:NoHead", STATED, "no single linear layer gives the 3 logits"),
        ("my_models.py:build", STATED | {"size": (9, 9)}, "cannot forward images of (1, 9, 9): RuntimeError"),
        ("my_models.py:build", {}, "nothing states size, mean, std of the images"),
        ("my_models.py:build", {"size": (8, 8)}, "nothing states mean, std of the images"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(file: Path, argument: str, stated: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.HarnessError) as caught:
        built(argument, stated=stated)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_go_to_the_function(file: Path) -> None:
    assert outputs(built(f"{file}:Net", width=7))[0].shape == (4, 7)
    with pytest.raises(harness.InputError, match="raised TypeError"):
        built(f"{file}:Net", widht=7)
