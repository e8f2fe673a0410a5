"""Scorers that end, block or exhaust their process, for the tests of worker processes. Never run them in yours."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from zoo import Otherwise, Whenever

import harness


def exits() -> None:
    os._exit(0)


def exits_with_an_error() -> None:
    os._exit(3)


def crashes() -> None:
    ctypes.string_at(0)


def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def never_returns() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(0.01)


def never_lets_go() -> None:
    """Hold the interpreter's lock for ever."""
    ctypes.PyDLL(None).pause()


def takes_all_memory() -> None:
    held = []
    while True:
        held.append(torch.ones(10_000_000))


def leaves_a_thread() -> None:
    threading.Thread(target=never_returns_as_a_thread).start()


def never_returns_as_a_thread() -> None:
    while True:
        time.sleep(0.01)


def leaves_a_process() -> None:
    """Start a process that never ends, and write down its number in the working folder."""
    child = os.fork()
    if child:
        Path(f"{child}.left").touch()
        return
    while True:
        time.sleep(0.01)


def comes_back_twice() -> None:
    """Fork, and let both processes go on."""
    os.fork()


def closes_everything() -> None:
    os.closerange(0, 4096)


def reads_its_input() -> None:
    input()


ACTS: dict[str, Callable[[], None]] = {
    act.__name__: act
    for act in (
        exits,
        exits_with_an_error,
        crashes,
        kills_itself,
        never_returns,
        never_lets_go,
        takes_all_memory,
        leaves_a_thread,
        leaves_a_process,
        comes_back_twice,
        closes_everything,
        reads_its_input,
    )
}


class ImageBeast:
    """Acts when it gets images."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def score_images(self, images: Tensor, classifier: Any) -> Tensor:
        self._act()
        return images.flatten(1).mean(dim=1)


class Mortal:
    """Ends its process the second time that it scores a chunk of a set; files in the working folder count."""

    def score(self, features: harness.Features) -> Tensor:
        count = len(list(Path.cwd().glob("chunk-*")))
        Path(f"chunk-{count}").touch()
        if count == 1:
            os._exit(4)
        return features.logits[:, 1]


def built_with(act: str) -> Whenever:
    """Act as soon as a parameter is tried."""
    ACTS[act]()
    return Whenever(ACTS[act], "never")


@harness.hookimpl
def harness_probes() -> Iterator[harness.ProbeSpec]:
    for name, act in ACTS.items():
        yield harness.ProbeSpec(name, lambda act=act: Otherwise(act))


@harness.hookimpl
def harness_estimators() -> Iterator[harness.EstimatorSpec]:
    for name, act in ACTS.items():
        yield harness.EstimatorSpec(name, lambda act=act: Otherwise(act))


@harness.hookimpl
def harness_adapters() -> Iterator[harness.AdapterSpec]:
    for name, act in ACTS.items():
        yield harness.AdapterSpec(name, lambda act=act: Otherwise(act))
        yield harness.AdapterSpec(f"{name}_in_prepare", lambda act=act: Otherwise(act), needs={"train"})


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    for name, act in ACTS.items():
        for when in ("build", "fit", "score"):
            yield harness.ScorerSpec(f"{name}_in_{when}", lambda act=act, when=when: Whenever(act, when))
        yield harness.ScorerSpec(f"{name}_on_streams", lambda act=act: Otherwise(act), needs={"stream"})
        yield harness.ScorerSpec(f"{name}_at_images", lambda act=act: ImageBeast(act), needs={"images"})
    yield harness.ScorerSpec("mortal", Mortal)
    yield harness.ScorerSpec("built_with", built_with)
