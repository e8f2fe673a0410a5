"""Memory decides how many images a model receives at once, and nothing else depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.base.cache import Cache
from harness.base.threads import ThreadChoice
from harness.contract.selection import Selection
from harness.data.streams import Stream
from harness.models import batching
from harness.models.batching import Activations, Pace, Pieces, activations
from harness.models.extract import Counts, extract
from harness.models.loaded import LoadedModel

if TYPE_CHECKING:
    from pathlib import Path


class Two(nn.Module):
    """A convolution to 4 channels of the same size, then a linear layer on their mean: sizes that are known by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.conv(images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def model(side: int = 64) -> harness.Model:
    return harness.Model(Two().eval(), harness.Preprocessing((3, side, side), (0.5,) * 3, (0.5,) * 3), 5)


def out_of_memory(error: Exception, at_most: int, seen: list[int]) -> Any:
    """Make a work that fails for more than `at_most` images, and notes the sizes that it gets."""

    def work(images: Tensor) -> Tensor:
        seen.append(len(images))
        if len(images) > at_most:
            raise error
        return images * 2

    return work


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:115] data. DefaultCPUAllocator: not enough memory: you tried"
    ),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


def test_activations_are_measured_per_image() -> None:
    found = activations(model(), "cpu")
    image, maps = 3 * 64 * 64 * 4, 4 * 64 * 64 * 4
    assert found == Activations(image + maps, maps + 5 * 4)


def test_on_the_cpu_a_batch_fits_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    built = model()
    one = 3 * (3 + 4) * 64 * 64 * 4  # thrice the convolution's input and output
    monkeypatch.setattr(batching, "BUDGET", 10 * one)
    assert Pace(built, "cpu").pieces(256).size == 8  # the largest power of two below 10
    assert Pace(built, "cpu").pieces(10).size == 10  # a whole batch that fits stays whole
    monkeypatch.setattr(batching, "BUDGET", one // 2)
    assert Pace(built, "cpu").pieces(256).size == 1
    assert Pace(model(), "cuda").pieces(256).size == 256
    assert Pace(model(4), "cpu").pieces(256).size == 256  # 12,288 values: too small to look at


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "cpu", "cpu-older"])
def test_what_does_not_fit_is_halved_with_one_warning(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    pieces, images = Pieces("net", 16), torch.arange(20.0)
    found = torch.cat(pieces.over(images, out_of_memory(error, 5, seen)))
    assert torch.equal(found, images * 2)
    assert seen == [16, 8, 4, 4, 4, 4, 4]
    pieces.over(images, out_of_memory(error, 5, seen))
    assert [record.message for record in caplog.records] == [
        "net: memory does not suffice for 16 images at once: it gets 4"
    ]


def test_one_image_that_does_not_fit_is_an_error_in_one_line() -> None:
    with pytest.raises(
        harness.InputError, match=r"one image of \(3, 8, 8\) does not fit into the memory of cpu"
    ):
        Pieces("net", 2).over(torch.zeros(2, 3, 8, 8), out_of_memory(ERRORS[1], 0, []))


def test_other_errors_halve_nothing() -> None:
    seen: list[int] = []
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Pieces("net", 4).over(torch.zeros(4), out_of_memory(RuntimeError("mat1 and mat2"), 1, seen))
    assert seen == [4]


@pytest.fixture
def stream(toys: Any) -> Stream:
    return Stream.of(Selection.all_of("levels", toys.Levels(21, 3, 0, 0, 64)), batch_size=16)


def test_pieces_change_features_by_rounding_and_no_key(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = model()
    whole, cut = LoadedModel(built, "cpu"), LoadedModel(built, "cpu")
    counts = Counts()
    (expected,) = extract(whole, stream, Cache(tmp_path / "a")).features.chunks()
    monkeypatch.setattr(batching, "BUDGET", 3 * (3 + 4) * 64 * 64 * 4 * 5)
    assert cut.pace.pieces(16).size == 4
    (found,) = extract(cut, stream, Cache(tmp_path / "b"), counts=counts).features.chunks()
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.ids, expected.ids)
    assert (counts.decoded, counts.forwarded) == (21, 21)
    assert whole.features_key(stream, layers=False) == cut.features_key(stream, layers=False)


class Hungry:
    """A scorer of images whose memory suffices for three images."""

    def score_images(self, images: Tensor, classifier: Two) -> Tensor:
        logits = classifier(images)
        if len(images) > 3:
            raise ERRORS[0]
        return logits[:, 0]


def test_a_scorer_of_images_is_halved_too_and_counts_no_failed_pass(
    stream: Stream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = LoadedModel(model(), "cpu")
    found = extract(loaded, stream, Cache(tmp_path), image_scorers={"hungry": Hungry()})
    scores = found.image_scores["hungry"]
    (features,) = found.features.chunks()
    assert scores.error is None
    assert scores.scores is not None
    torch.testing.assert_close(
        torch.from_numpy(scores.scores).float(), features.logits[:, 0], rtol=1e-5, atol=1e-6
    )
    assert scores.forwards == 21
    assert len([r for r in caplog.records if "does not suffice" in r.message]) == 1


def test_small_work_takes_one_thread_and_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.base.threads.threads_of_user", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert Pace(model(4), "cpu").threads(16).candidates == (1,)
    assert Pace(model(64), "cpu").threads(16).candidates == (1, 4)
    assert ThreadChoice.on("cuda").candidates == (4,)
