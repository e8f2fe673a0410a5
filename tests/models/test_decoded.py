"""Decoded streams are kept while there is room, and are the same whether they are kept or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import made

from harness.contract.preprocessing import Preprocessing
from harness.contract.selection import Selection
from harness.contract.specs import Model
from harness.data.streams import Stream
from harness.models.decoded import Decoder
from harness.models.extract import Counts
from harness.models.loaded import LoadedModel
from harness_plugins.datasets.arrays import ArrayDataset

PIXELS = 6 * 6


def stream(seed: int, count: int = 20) -> Stream:
    images = np.random.default_rng(seed).integers(0, 256, (count, 6, 6), dtype=np.uint8)
    return Stream.mixed([Selection.all_of("images", ArrayDataset(images))], batch_size=8, seed=seed)


def decoder(room: int) -> Decoder:
    loaded = LoadedModel(Model(made(), Preprocessing((1, 6, 6)), 4), "cpu")
    return Decoder(loaded, Counts(), room)


def pixels(of: Stream) -> torch.Tensor:
    return torch.from_numpy(np.stack(of.images(np.arange(len(of)))))[:, None]


@pytest.mark.parametrize(("room", "decoded"), [(20 * PIXELS, 20), (20 * PIXELS - 1, 40)])
def test_a_stream_is_decoded_once_where_it_fits_and_comes_in_its_batches(room: int, decoded: int) -> None:
    given, images = decoder(room), stream(0)
    for _ in range(2):
        batches = list(given.batches(images))
        assert [len(batch) for batch in batches] == [8, 8, 4]
        assert torch.equal(torch.cat(batches), pixels(images))
    assert given.counts.decoded == decoded


def test_what_was_used_last_is_kept() -> None:
    given = decoder(40 * PIXELS)
    for seed in (0, 1, 0, 2, 0, 1):  # the third pushes out the second
        list(given.batches(stream(seed)))
    assert given.counts.decoded == 20 * 4


@pytest.mark.parametrize("room", [20 * PIXELS, 0])
def test_images_can_be_had_at_any_positions(room: int) -> None:
    given, images = decoder(room), stream(3)
    chosen = np.array([19, 0, 7, 7])
    for _ in range(2):
        assert torch.equal(given.at(images, chosen), pixels(images)[chosen])
    assert given.counts.decoded == (20 if room else 8)
