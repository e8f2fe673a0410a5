"""Extraction gives what the model computes, whatever its head, and keeps it under the right key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from harness.base.cache import Cache
from harness.base.errors import InputError
from harness.contract.preprocessing import Preprocessing
from harness.contract.selection import Selection
from harness.contract.specs import Model
from harness.data.streams import Stream
from harness.models.extract import Counts, extract
from harness.models.loaded import LoadedModel, resolve_device


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def stream(toys: Any) -> Stream:
    return Stream.of(Selection.all_of("levels", toys.Levels(10, 3, 0, 0, 4)), batch_size=4)


def timm_model(name: str) -> LoadedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, num_classes=5, in_chans=1, img_size=None)
    size = model.pretrained_cfg["input_size"]
    return LoadedModel(Model(model.eval(), Preprocessing((1, *size[1:])), 5), "cpu")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_timm_models_features_are_its_own(name: str, stream: Stream, cache: Cache) -> None:
    model = timm_model(name)
    (features,) = extract(model, stream, cache).features.chunks()

    images = model.model.preprocessing.batch(stream.images(np.arange(10)))
    with torch.inference_mode():
        inputs = model.model.preprocessing.normalise(images)
        logits = torch.cat([model.module(inputs[i : i + 4]) for i in (0, 4, 8)])
    torch.testing.assert_close(features.logits, logits, rtol=0, atol=1e-6)
    weight, bias = model.head.weight, model.head.bias  # type: ignore[union-attr]
    torch.testing.assert_close(features.penultimate @ weight.T + bias, logits, rtol=0, atol=1e-5)
    assert {"logits", "penultimate", "head", "linear", "images", "gradients", "layers"} <= model.offers


def test_layers_are_spatial_means_of_the_named_modules(stream: Stream, cache: Cache) -> None:
    model = timm_model("test_resnet")
    (features,) = extract(model, stream, cache, layers=True).features.chunks()

    outputs: dict[str, torch.Tensor] = {}
    module = dict(model.module.named_modules())[model.layer_names[-1]]
    handle = module.register_forward_hook(lambda _m, _i, output: outputs.update(last=output))
    with torch.inference_mode():
        images = model.model.preprocessing.batch(stream.images(np.arange(10)))
        model.module(model.model.preprocessing.normalise(images))
    handle.remove()
    assert list(features.layers) == sorted(model.layer_names)
    torch.testing.assert_close(
        features.layers[model.layer_names[-1]], outputs["last"].mean(dim=(2, 3)), rtol=0, atol=1e-5
    )


def test_layers_are_another_entry_and_leave_the_plain_key_alone(stream: Stream) -> None:
    model = timm_model("test_resnet")
    assert model.features_key(stream, layers=True) != model.features_key(stream, layers=False)


def test_a_head_that_is_not_linear_offers_a_head_and_no_linear(
    toys: Any, stream: Stream, cache: Cache
) -> None:
    import harness

    built = toys.network(harness.ModelRequest(name="network"), head="distance")
    model = LoadedModel(built, "cpu")
    (features,) = extract(model, stream, cache).features.chunks()
    assert "head" in model.offers
    assert "linear" not in model.offers
    assert features.logits.max() <= 0


def test_the_stored_head_is_not_moved_by_later_training(toys: Any) -> None:
    import harness

    model = LoadedModel(toys.network(harness.ModelRequest(name="network")), "cpu")
    assert not model.head.weight.requires_grad  # type: ignore[union-attr]


def test_too_few_outputs_are_refused_with_both_counts(toys: Any, stream: Stream, cache: Cache) -> None:
    import harness

    model = LoadedModel(toys.network(harness.ModelRequest(name="network"), outputs=2, classes=3), "cpu")
    with pytest.raises(InputError, match="the model has 2 outputs for 3 classes"):
        extract(model, stream, cache)


def test_a_damaged_entry_is_extracted_again_and_equal(
    toys: Any, stream: Stream, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    import harness

    model = LoadedModel(toys.network(harness.ModelRequest(name="network")), "cpu")
    counts = Counts()
    (before,) = extract(model, stream, cache, counts=counts).features.chunks()
    (file,) = (cache.root / "features").glob("*/logits.npy")
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    (after,) = extract(model, stream, cache, counts=counts).features.chunks()
    assert torch.equal(before.logits, after.logits)
    assert counts.forwarded == 20
    assert "is damaged" in caplog.text


def test_the_models_own_size_channels_and_normalisation_reach_it() -> None:
    preprocessing = Preprocessing(
        (3, 6, 6), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125), interpolation="nearest"
    )
    grey = np.full((3, 3), 51, dtype=np.uint8)
    images = preprocessing.batch([grey, grey])
    normalised = preprocessing.normalise(images)
    assert images.shape == (2, 3, 6, 6)
    assert images.dtype == torch.uint8
    expected = torch.tensor([(0.2 - 0.1) / 0.5, 0.0, (0.2 - 0.3) / 0.125])
    torch.testing.assert_close(normalised[0, :, 0, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_geometry_is_timms(crop_pct: float) -> None:
    from PIL import Image
    from timm.data.transforms_factory import create_transform

    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocessing = Preprocessing((3, 24, 24), mean, std, interpolation="bicubic", crop_pct=crop_pct)
    transform = create_transform((3, 24, 24), interpolation="bicubic", mean=mean, std=std, crop_pct=crop_pct)
    ours = preprocessing.normalise(preprocessing.batch([image]))[0]
    torch.testing.assert_close(ours, transform(Image.fromarray(image)), atol=2e-6, rtol=0)


def test_a_wrong_number_of_means_or_channels_is_refused() -> None:
    with pytest.raises(InputError, match="mean has 1 values for 3 channels"):
        Preprocessing((3, 8, 8))
    with pytest.raises(InputError, match="has 4 channels. Valid: 1"):
        Preprocessing((4, 8, 8), (0.0,) * 4, (1.0,) * 4)


def test_an_absent_device_is_refused_with_the_present_ones() -> None:
    with pytest.raises(InputError, match=r"the device 'cuda:99' is not there\. Valid: auto, cpu"):
        resolve_device("cuda:99")
    assert resolve_device("auto") in ("cpu", "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_features_on_the_gpu_are_those_of_the_cpu(stream: Stream, cache: Cache) -> None:
    on_cpu = timm_model("test_resnet")
    (expected,) = extract(on_cpu, stream, cache).features.chunks()
    on_gpu = LoadedModel(
        Model(timm_model("test_resnet").module.cuda(), on_cpu.model.preprocessing, 5), "cuda"
    )
    (found,) = extract(on_gpu, stream, Cache(cache.root / "gpu")).features.chunks()
    assert found.logits.is_cuda
    torch.testing.assert_close(found.logits.cpu(), expected.logits, atol=1e-4, rtol=1e-4)


def test_layers_of_any_shape_stop_no_other_scorer(stream: Stream, cache: Cache) -> None:
    model = timm_model("test_resnet")
    module = model.module

    class Odd(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            return images.unsqueeze(0)

    class Windows(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(2).repeat(4, 1, 1)

    class Flat(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    original = module.forward_features

    def forward_features(images: torch.Tensor) -> torch.Tensor:
        module.odd(images), module.flat(images), module.windows(images)
        found: torch.Tensor = original(images)
        return found

    module.odd, module.flat, module.windows = Odd(), Flat(), Windows()
    module.forward_features = forward_features  # type: ignore[method-assign]
    module.feature_info = [{"module": "odd"}, {"module": "flat"}, {"module": "windows"}]
    (features,) = extract(model, stream, cache, layers=True).features.chunks()
    assert set(features.layers) == {"flat"}
    assert features.layers["flat"].shape == (10, model.model.preprocessing.input_size[1] ** 2)
