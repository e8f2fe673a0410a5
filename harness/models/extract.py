"""One pass over a stream: each image is decoded once and forwarded once, for all consumers of its features.

The first and the last image are decoded once more, to notice a dataset that draws random numbers.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from harness.base import surroundings
from harness.base.errors import DatasetError, InputError
from harness.base.progress import progress_bar
from harness.base.seeding import repeatable_kernels
from harness.contract.features import FeatureSet
from harness.models.batching import decoded_at_once
from harness.models.image_scoring import ImageTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from harness.base.cache import Cache, EntryWriter
    from harness.contract.protocols import ImageScorer
    from harness.data.streams import Stream
    from harness.models.image_scoring import ImageScores
    from harness.models.loaded import LoadedModel

_WORKERS_PAY_FROM = 4096  # images; for fewer, starting worker processes takes longer than it saves


@dataclass
class Counts:
    """Number of images decoded and forwarded."""

    decoded: int = 0
    forwarded: int = 0


@dataclass
class Extraction:
    """The features of one stream, and the scores of image scorers."""

    features: FeatureSet
    image_scores: dict[str, ImageScores] = field(default_factory=dict)


def extract(
    model: LoadedModel,
    stream: Stream,
    cache: Cache,
    *,
    layers: bool = False,
    image_scorers: Mapping[str, ImageScorer] | None = None,
    counts: Counts | None = None,
    progress: bool = False,
) -> Extraction:
    """Return a stream's features, from the cache or by one pass that fills it.

    Image scorers run in the same pass. If the features are cached and image scores are wanted, the images are decoded
    again for these scores only.

    Raises InputError if the model's outputs do not match its description, DatasetError if an image cannot be read.
    """
    import numpy as np

    key = model.features_key(stream, layers=layers)
    arrays = cache.load(key)
    tasks = {
        name: ImageTask(name, scorer, model, stream.batch_size)
        for name, scorer in (image_scorers or {}).items()
    }
    if arrays is None:
        with cache.writer(key) as writer:
            sink = _FeatureSink(model, stream, writer, layers=layers)
            _one_pass(model, stream, [sink, *tasks.values()], counts or Counts(), progress=progress)
        arrays = cache.load(key)
    elif tasks:
        _one_pass(model, stream, list(tasks.values()), counts or Counts(), progress=progress)
    if arrays is None:
        raise InputError(
            f"the features of {stream.name!r} disappeared from the cache while it wrote them. Check its disk"
        )
    columns = {**arrays, "labels": stream.labels, "ids": np.arange(len(stream))}
    results = {name: task.result() for name, task in tasks.items()}
    return Extraction(FeatureSet(columns, device=model.device), results)


class _Consumer(Protocol):
    def consume(self, images: Tensor) -> None:
        """Process the next batch of normalised images."""


def _one_pass(
    model: LoadedModel, stream: Stream, consumers: Sequence[_Consumer], counts: Counts, *, progress: bool
) -> None:
    forwards = any(isinstance(consumer, _FeatureSink) for consumer in consumers)
    bar = progress_bar(total=len(stream), description=stream.name, unit="img", enabled=progress)
    with surroundings.restored() as restore, repeatable_kernels(), bar:
        model.module.eval()
        at_once = model.pace.pieces(stream.batch_size).size
        threads = model.pace.threads(stream.batch_size)
        for batch in decoded_batches(model, stream, at_once):
            restore()  # neither a stranger's images nor its model change the process for the next batch
            with threads.turn(len(batch)):
                images = model.model.preprocessing.normalise(batch.to(model.device, non_blocking=True))
                for consumer in consumers:
                    consumer.consume(images)
            counts.decoded += len(images)
            counts.forwarded += len(images) if forwards else 0
            bar.update(len(images))


class _FeatureSink:
    """Forwards batches and writes the model's outputs into a cache entry."""

    def __init__(self, model: LoadedModel, stream: Stream, writer: EntryWriter, *, layers: bool) -> None:
        self._model, self._writer, self._length = model, writer, len(stream)
        self._pieces = model.pace.pieces(stream.batch_size)
        self._arrays: dict[str, NDArray[Any]] = {}
        self._layers = model.layer_names if layers else []
        self._filled = 0

    def consume(self, images: Tensor) -> None:
        """Forward the next batch and write its outputs."""
        self._pieces.over(images, self._write)

    def _write(self, images: Tensor) -> None:
        import torch

        with torch.inference_mode(), _precision(self._model):
            outputs = self._forward(images)
        if not self._arrays:
            self._check_head(outputs)
            for name, value in outputs.items():
                self._arrays[name] = self._writer.array(name, (self._length, *value.shape[1:]), "<f4")
        stop = self._filled + len(images)
        for name, value in outputs.items():
            broken = int(value.isnan().flatten(1).any(dim=1).sum())
            if broken:
                raise InputError(
                    f"the model gives NaN in {name} for {broken} of {len(value)} images. Check its weights and dtype"
                )
            self._arrays[name][self._filled : stop] = value.float().cpu().numpy()
        self._filled = stop

    def _forward(self, images: Tensor) -> dict[str, Tensor]:
        classifier = self._model.model.classifier
        with _recorded_layers(self._model.module, self._layers) as layers:
            last = classifier.forward_features(images)
        outputs = {"penultimate": classifier.forward_head(last, pre_logits=True)}
        if self._model.model.num_classes:
            outputs = {"logits": classifier.forward_head(last), **outputs}
        for name, value in outputs.items():
            if value.ndim != 2 or len(value) != len(images):
                raise InputError(
                    f"the model gives {name} of shape {tuple(value.shape)} for {len(images)} images. "
                    "Return one row per image: (N, C) logits, (N, D) penultimate"
                )
        # A layer without one row per image, such as windows of a transformer, is left out; the others go on.
        whole = {name: value for name, value in layers.items() if len(value) == len(images)}
        return outputs | {f"layers/{name}": value for name, value in whole.items()}

    def _check_head(self, outputs: dict[str, Tensor]) -> None:
        classes = self._model.model.num_classes
        outputs_given = outputs["logits"].shape[1] if classes else 0  # an encoder has no logits
        if outputs_given < classes:
            raise InputError(
                f"the model has {outputs_given} outputs for {classes} classes. Give a model with {classes} or more"
            )


@contextlib.contextmanager
def _recorded_layers(module: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Record the named modules' outputs, as (N, C): vectors, or means over space (N, C, H, W) or tokens (N, L, C)."""
    recorded: dict[str, Tensor] = {}
    modules = dict(module.named_modules())
    channels_last = str(getattr(module, "output_fmt", "")) == "NHWC"  # timm sets it, as for Swin

    def recorder(name: str) -> Callable[[object, object, Tensor], None]:
        def record(_module: object, _inputs: object, output: Tensor) -> None:
            if getattr(output, "ndim", 0) not in (2, 3, 4):
                return  # no layer that scorers can read; the others go on
            if output.ndim == 2:  # one vector per image
                recorded[name] = output
            elif output.ndim == 3:  # tokens
                recorded[name] = output.mean(dim=1)
            else:
                recorded[name] = output.mean(dim=(1, 2)) if channels_last else output.flatten(2).mean(2)

        return record

    handles = [modules[name].register_forward_hook(recorder(name)) for name in names]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


class _Decoded:
    """Batches of decoded images, for torch's DataLoader. Only some originals are in memory at once."""

    def __init__(self, model: LoadedModel, stream: Stream, at_once: int) -> None:
        self._preprocessing, self._stream = model.model.preprocessing, stream
        self._batches = [piece for batch in stream.batches() for piece in _cut(batch, at_once)]
        self._originals = decoded_at_once(self._preprocessing)

    def __getitem__(self, number: int) -> Tensor:
        import torch

        pieces = _cut(self._batches[number], self._originals)
        found = [self._preprocessing.batch(self._stream.images(piece)) for piece in pieces]
        if number == 0:
            self._require_repeatable(pieces[0][:1], found[0][:1])
        if number == len(self) - 1:
            self._require_repeatable(pieces[-1][-1:], found[-1][-1:])
        return torch.cat(found) if len(found) > 1 else found[0]

    def _require_repeatable(self, position: NDArray[np.int64], image: Tensor) -> None:
        """Decode an image again. Raises DatasetError if other pixels come: numbers would differ in every run."""
        import torch

        if not torch.equal(self._preprocessing.batch(self._stream.images(position)), image):
            raise DatasetError(
                f"the dataset {self._stream.name!r} has other pixels each time that image {position[0]} is decoded, so "
                "its numbers would differ in every run. Draw what is random from a seed for each image"
            )

    def __len__(self) -> int:
        return len(self._batches)


def _cut(positions: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def decoded_batches(model: LoadedModel, stream: Stream, at_once: int | None = None) -> Iterator[Tensor]:
    """Decode ahead of the model: in worker processes if a GPU would otherwise wait, else in a thread.

    Yields the stream's batches, or parts of them of at most `at_once` images.
    """
    decoded: Any = _Decoded(model, stream, at_once or stream.batch_size)
    if model.device.startswith("cuda") and len(stream) >= _WORKERS_PAY_FROM:
        from torch.utils.data import DataLoader

        workers = min(8, max(1, (os.cpu_count() or 1) - 1))
        yield from DataLoader(
            decoded, batch_size=None, num_workers=workers, pin_memory=True, prefetch_factor=4
        )
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming = thread.submit(decoded.__getitem__, 0)
        for number in range(1, len(decoded) + 1):
            batch = upcoming.result()
            if number < len(decoded):
                upcoming = thread.submit(decoded.__getitem__, number)
            yield batch


def _precision(model: LoadedModel) -> contextlib.AbstractContextManager[Any]:
    import torch

    if model.dtype == "float32":
        return contextlib.nullcontext()
    dtype: torch.dtype = getattr(torch, model.dtype)
    return torch.autocast(model.device.partition(":")[0], dtype=dtype)
