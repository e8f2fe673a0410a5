"""Logits are the model's own, whatever its last step; a head is offered only if it reproduces them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.base.cache import Cache
from harness.base.errors import InputError
from harness.contract.features import LinearHead
from harness.contract.preprocessing import Preprocessing
from harness.contract.selection import Selection
from harness.contract.specs import Model
from harness.data.streams import Stream
from harness.models.extract import extract
from harness.models.heads import probe, require_repeatable, verified_head
from harness.models.loaded import LoadedModel

GREY = Preprocessing((1, 8, 8), mean=(0.5,), std=(0.5,))


class Network(nn.Module):
    """A network whose last step is one of several."""

    def __init__(self, last: str) -> None:
        super().__init__()
        self.body, self.last = nn.Linear(64, 6), last
        self.norm, self.fc, self.second = nn.BatchNorm1d(6), nn.Linear(6, 3), nn.Linear(6, 3)
        self.conv = nn.Conv2d(6, 3, 1, bias=False)

    def forward_features(self, images: Tensor) -> Tensor:
        found: Tensor = self.body(images.flatten(1)).relu()
        return found

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits:
            return features
        steps: dict[str, Any] = {
            "linear": self.fc,
            "norm": lambda x: self.fc(self.norm(x)),
            "conv": lambda x: self.conv(x[:, :, None, None]).flatten(1),
            "scale": lambda x: 3 * self.fc(x),
            "pair": lambda x: (self.fc(x) + self.second(x.square())) / 2,
        }
        logits: Tensor = steps[self.last](features)
        return logits

    def get_classifier(self) -> Any:
        return {"conv": self.conv, "pair": (self.fc, self.second)}.get(self.last, self.fc)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def randomised(module: nn.Module) -> nn.Module:
    """Draw vectors and statistics anew: fresh ones are 0 or 1, and hide a map that is left out."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                assert layer.running_var is not None
                layer.running_mean.normal_(std=0.1, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def extracted(model: LoadedModel, folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Extract noise; return logits, penultimate features, and the logits of the model's own forward."""
    channels, *size = model.model.preprocessing.input_size
    rng, shape = np.random.default_rng(0), (*size, 3) if channels == 3 else tuple(size)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(4)]
    stream = Stream.of(Selection.all_of("noise", Images(images)), batch_size=4)
    (features,) = extract(model, stream, Cache(folder)).features.chunks()
    preprocessing = model.model.preprocessing
    with torch.inference_mode():
        own = model.module(preprocessing.normalise(preprocessing.batch(images)))
    return features.logits, features.penultimate, own


class Images:
    """Images in memory, without labels."""

    digest = "noise"

    def __init__(self, images: list[np.ndarray]) -> None:
        self.images, self.labels = images, np.full(len(images), -1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[index]

    def identity(self, index: int) -> bytes:
        return bytes([index])


@pytest.mark.parametrize(
    ("last", "is_linear"),
    [("linear", True), ("norm", True), ("conv", True), ("scale", False), ("pair", False)],
)
def test_logits_are_the_models_own_and_the_head_reproduces_them_or_is_none(
    last: str, is_linear: bool, tmp_path: Path
) -> None:
    model = LoadedModel(Model(randomised(Network(last)), GREY, 3), "cpu")
    logits, penultimate, own = extracted(model, tmp_path)
    torch.testing.assert_close(logits, own, rtol=0, atol=1e-6)
    assert isinstance(model.head, LinearHead) == is_linear
    assert ("linear" in model.offers) == ("head" in model.offers) == is_linear
    if is_linear:
        torch.testing.assert_close(model.head(penultimate), own, rtol=0, atol=1e-5)


def test_a_head_that_is_no_linear_map_is_offered_as_it_is() -> None:
    class Distance(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            return -torch.cdist(features, self.weight)

    network = Network("linear")
    network.fc = Distance(6, 3)
    network.eval()
    head = verified_head(network, probe(GREY, "cpu"))
    assert head is network.fc


def test_a_model_that_contradicts_itself_is_refused() -> None:
    class Doubled(Network):
        def forward(self, images: Tensor) -> Tensor:
            return 2 * super().forward(images)

    with pytest.raises(InputError, match="forward gives other logits"):
        verified_head(Doubled("linear"), probe(GREY, "cpu"))


# One model for each form of last step that timm has, and whether a linear head is expected.
TIMM = {
    "test_resnet": True, "test_vit": True, "test_convnext": True, "mobilenetv3_small_050": True, "ghostnet_050": True,
    "efficientvit_m0": True, "shvit_s1": True, "resnetv2_18": True, "dla46x_c": True, "dpn48b": True,
    "deit_tiny_distilled_patch16_224": False, "levit_128s": False, "xcit_nano_12_p8_224": True, "repvit_m0_9": False,
    "swin_s3_tiny_224": True,
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_every_form_of_head_in_timm_gives_its_own_logits(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = randomised(timm.create_model(name, pretrained=False, num_classes=5))
    size = module.pretrained_cfg["input_size"]
    model = LoadedModel(Model(module, Preprocessing(size, mean=(0.5,) * 3, std=(0.5,) * 3), 5), "cpu")
    logits, penultimate, own = extracted(model, tmp_path)
    largest = float(own.abs().max())
    torch.testing.assert_close(logits, own, rtol=0, atol=1e-5 * largest)
    assert isinstance(model.head, LinearHead) == TIMM[name]
    if model.head is not None:
        torch.testing.assert_close(model.head(penultimate), own, rtol=0, atol=1e-4 * largest)


class Restless(Network):
    """Draws noise in each forward pass, in the features or behind them."""

    def __init__(self, where: str) -> None:
        super().__init__("linear")
        self._where = where

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        found = super().forward_head(features, pre_logits=pre_logits)
        is_noisy = self._where == "features" or (self._where == "logits" and not pre_logits)
        return found + is_noisy * torch.rand_like(found)


@pytest.mark.parametrize(
    ("where", "pre_logits"), [("features", True), ("features", False), ("logits", False)]
)
def test_a_model_that_draws_random_numbers_is_refused(where: str, pre_logits: bool) -> None:
    images = probe(GREY, "cpu")
    with pytest.raises(InputError, match="other outputs when it forwards the same images again"):
        require_repeatable(Restless(where), images, pre_logits=pre_logits)
    require_repeatable(Restless("nowhere"), images, pre_logits=pre_logits)
