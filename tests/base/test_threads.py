"""One CPU thread or all: the faster is kept, unless the user has set a number."""

from __future__ import annotations

import itertools

import pytest
import torch

from harness.base import threads
from harness.base.threads import CLEAR, TRIALS, ThreadChoice, on_threads, threads_of_user


class Machine:
    """A machine of four threads on which time passes only in `work`, and by the number of threads."""

    def __init__(self) -> None:
        self.now, self.threads = 0.0, 4
        self.seconds = {1: 1.0, 4: 1.0}

    def work(self) -> None:
        self.now += self.seconds[self.threads]

    def set_num_threads(self, count: int) -> None:
        self.threads = count


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(torch, "get_num_threads", lambda: found.threads)
    monkeypatch.setattr(torch, "set_num_threads", found.set_num_threads)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: found.now)
    return found


def pieces_until_chosen(choice: ThreadChoice, machine: Machine, amounts: tuple[int, ...] = (1,)) -> int:
    for number, amount in enumerate(itertools.cycle(amounts)):
        if choice.chosen is not None:
            return number
        with choice.turn(amount):
            machine.work()
    raise AssertionError


@pytest.mark.parametrize(("one", "all_"), [(1.0, 1.5), (1.5, 1.0)])
def test_the_faster_number_is_kept_after_some_trials_of_each(
    machine: Machine, one: float, all_: float
) -> None:
    machine.seconds.update({1: one, 4: all_})
    choice = ThreadChoice((1, 4))
    assert pieces_until_chosen(choice, machine) == 2 * (1 + TRIALS)
    assert choice.chosen == (1 if one < all_ else 4)
    assert torch.get_num_threads() == 4
    with choice.turn():
        assert torch.get_num_threads() == choice.chosen


def test_a_clear_difference_needs_one_trial_of_each(machine: Machine) -> None:
    machine.seconds.update({1: 1.0, 4: CLEAR})
    choice = ThreadChoice((1, 4))
    assert pieces_until_chosen(choice, machine) == 4
    assert choice.chosen == 1


def test_pieces_of_different_size_are_compared_per_unit(machine: Machine) -> None:
    machine.seconds.update({1: 1.0, 4: 1.5})  # but the pieces of four threads are thrice as large
    choice = ThreadChoice((1, 4))
    pieces_until_chosen(choice, machine, (1, 3))
    assert choice.chosen == 4


@pytest.mark.parametrize("name", threads.VARIABLES)
def test_a_variable_of_the_user_wins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in threads.VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setattr(threads, "_defaults", lambda: {8})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert threads_of_user() is None
    assert ThreadChoice.on("cpu").candidates == (1, 8)
    monkeypatch.setenv(name, "8")
    assert ThreadChoice.on("cpu").candidates == (8,)
    assert ThreadChoice.on("cpu", is_small=True).candidates == (8,)


def test_a_number_set_in_torch_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_defaults", lambda: {4, 8})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert threads_of_user() == 3
    assert ThreadChoice.on("cpu").chosen == 3


def test_the_former_number_is_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), on_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
