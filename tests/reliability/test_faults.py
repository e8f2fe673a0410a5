"""A disk that fails, is full, slow or not to be written costs no number: one line, and the same command goes on."""

from __future__ import annotations

import errno
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from children import Ended, in_child, may_mount, mount, obey_rights
from disturbed import BLOCKS, SUITES, Subject
from faults import FileOperations
from trials import Trials, some

pytestmark = pytest.mark.trials("faults")

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.ESTALE)
PLACES = ("out", "cache")
SEED = 15
needs_mounts = pytest.mark.skipif(not may_mount(), reason="only root may mount a small disk")


def check_end(ended: Ended) -> None:
    """Check that a disturbed run ended as the command line promises: well, or with failed cells, or with one line."""
    assert ended.is_explained, ended.said
    assert ended.code < 2 or ended.said.count("\n") == 1, ended.said


def check_that_it_goes_on(subject: Subject, expected: Subject) -> None:
    """Check that the same command, undisturbed, brings the same bytes."""
    subject.run()
    assert subject.numbers() == expected.numbers()
    assert subject.leftovers() == []


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("suite", SUITES)
def test_an_operation_that_fails(
    suite: str, block: int, undisturbed: dict[str, Subject], trials: Trials, tmp_path: Path
) -> None:
    expected = undisturbed[suite]
    for at in some(expected.points(block), 1):
        subject = expected.again_in(tmp_path / str(at))
        check_end(in_child(failing(subject, at)))
        check_that_it_goes_on(subject, expected)
        trials.add()


def failing(subject: Subject, at: int) -> Callable[[], int]:
    """Return a run one of whose operations on files fails."""
    number = random.Random(SEED + at).choice(ERRORS)

    def work() -> int:
        with pytest.MonkeyPatch.context() as patched:
            operations = FileOperations(patched, subject.folder, fail_at=at, number=number)
            try:
                return subject.exit_code()
            finally:
                assert operations.failed, f"there is no operation {at}"

    return work


@pytest.mark.parametrize("size", some([2**power for power in range(18)], 6))
@pytest.mark.parametrize("suite", SUITES)
def test_files_that_may_not_grow(
    suite: str, size: int, undisturbed: dict[str, Subject], tmp_path: Path
) -> None:
    expected = undisturbed[suite]
    subject = expected.again_in(tmp_path / "run")

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return subject.exit_code()

    ended = in_child(work)
    check_end(ended)
    assert (ended.code == 2) or size > 64  # of the journal, a line is longer
    check_that_it_goes_on(subject, expected)


FULL = {f"{kilobytes} KB": f"size={kilobytes}k" for kilobytes in range(4, 260, 16)}
FULL |= {f"{files} files": f"size=64m,nr_inodes={files}" for files in range(2, 60, 8)}


@needs_mounts
@pytest.mark.parametrize("room", some(list(FULL), 6))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("suite", SUITES)
def test_a_full_disk(
    suite: str, place: str, room: str, undisturbed: dict[str, Subject], tmp_path: Path
) -> None:
    expected = undisturbed[suite]
    subject = expected.again_in(tmp_path / "run")

    def work() -> int:
        on_small_disk(subject, place, FULL[room])
        check_end(in_child(subject.exit_code))
        mount(subject.folder / place, "size=64m,nr_inodes=100k", again=True)
        check_that_it_goes_on(subject, expected)
        return 0

    ended = in_child(work)
    assert ended.code == 0, ended.said


def on_small_disk(subject: Subject, place: str, options: str) -> None:
    """Let a folder of a run lie on a disk that only this process sees."""
    (subject.folder / place).mkdir()
    mount(subject.folder / place, options)


@needs_mounts
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("suite", SUITES)
def test_a_disk_that_is_not_to_be_written(
    suite: str, begun: bool, place: str, undisturbed: dict[str, Subject], tmp_path: Path
) -> None:
    expected = undisturbed[suite]
    subject = expected.again_in(tmp_path / "run")

    def work() -> int:
        on_small_disk(subject, place, "size=64m")
        if begun:
            subject.run()
            shutil.rmtree(subject.out if place == "cache" else subject.cache)
        mount(subject.folder / place, "size=64m", again=True, read_only=True)
        check_end(in_child(subject.exit_code))
        mount(subject.folder / place, "size=64m", again=True)
        check_that_it_goes_on(subject, expected)
        return 0

    ended = in_child(work)
    assert ended.code == 0, ended.said


def test_a_slow_disk(undisturbed: dict[str, Subject], tmp_path: Path) -> None:
    expected = undisturbed["every kind"]
    subject = expected.again_in(tmp_path / "run")
    draw = random.Random(SEED)
    with pytest.MonkeyPatch.context() as patched:
        FileOperations(patched, subject.folder, before=lambda: time.sleep(draw.uniform(0, 0.005)))
        subject.run()
    assert subject.numbers() == expected.numbers()


# Files that are damaged or not to be read --------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_the_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def overwrite(path: Path) -> None:
    path.write_bytes(random.Random(SEED).randbytes(path.stat().st_size))


def remove(path: Path) -> None:
    path.unlink()


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def forbid(path: Path) -> None:
    path.chmod(0)


DAMAGES = [empty, cut, flip_a_bit, flip_the_last_bit, lengthen, overwrite, remove, put_a_folder, forbid]


def clear(obstacle: Path, damage: Callable[[Path], None]) -> None:
    """Do what a person would do with a file that is in the way."""
    if damage is forbid:
        obstacle.chmod(0o644)
    elif obstacle.is_dir():
        obstacle.rmdir()
    else:
        obstacle.unlink()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("suite", SUITES)
def test_a_damaged_file(
    suite: str,
    damage: Callable[[Path], None],
    undisturbed: dict[str, Subject],
    trials: Trials,
    tmp_path: Path,
) -> None:
    expected = undisturbed[suite]
    for number, file in enumerate(some(expected.one_of_each(), 4)):
        subject = expected.copy_to(tmp_path / str(number))
        damage(subject.folder / file)
        ended = in_child(lambda subject=subject: obey_rights() or subject.exit_code())
        check_end(ended)
        if ended.code == 2:  # it names what stands in the way
            assert str(file) in ended.said
            clear(subject.folder / file, damage)
        check_that_it_goes_on(subject, expected)
        trials.add()
