"""What it costs to protect the numbers of a board from plugins and disks, measured side by side in one run.

    OOD_HARNESS_DATA=... python benchmarks/perf/protection.py BEFORE [SUITE] [--rounds N]

BEFORE is a checkout of another version, such as that before the protection. Each round runs the suite by that version,
by this one, and by this one with every scorer in a worker process, in turns: once with a cold cache of
features, and once with a warm one. Models are trained beforehand. A run is the whole command, the start of Python
included. Exit 1 if this version takes more than the bound.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parents[2]
BOUND = 1.03
COLD, WARM = "cold cache", "warm cache"


class Version:
    """A checkout, with a cache of its own, and further options of `ood-harness run`."""

    def __init__(self, name: str, checkout: Path, folder: Path, *options: str) -> None:
        self.name, self._checkout, self._folder, self._options = name, checkout, folder, options
        self.seconds: dict[str, list[float]] = {COLD: [], WARM: []}

    def train(self, suite: str) -> None:
        """Run once, so that the model is there."""
        self._run(suite)

    def measure(self, suite: str) -> None:
        """Run with a cold and with a warm cache."""
        shutil.rmtree(self._folder / "cache" / "features")
        for state in (COLD, WARM):
            self.seconds[state].append(self._run(suite))

    def _run(self, suite: str) -> float:
        out = self._folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "harness.cli", "run", suite, "--out", str(out)]
        command += ["--cache", str(self._folder / "cache"), "--device", "cpu", *self._options]
        paths = [self._checkout, self._checkout / "plugins", *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        begun = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True, cwd=self._folder)
        spent = time.perf_counter() - begun
        print(f"{self.name}: {spent:.1f} s", file=sys.stderr, flush=True)  # progress
        return spent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("suite", nargs="?", default="fashion-mnist")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        versions = [
            Version("before", arguments.before.resolve(), made(folder, "before")),
            Version("now", HERE, made(folder, "now")),
            Version("now, all in workers", HERE, Path(folder) / "now", "--isolate", "all"),
        ]
        for version in versions[:2]:  # the third shares the second's models
            version.train(arguments.suite)
        for number in range(arguments.rounds):
            for version in versions if number % 2 == 0 else reversed(versions):
                version.measure(arguments.suite)
    return report(arguments.suite, versions)


def made(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path


def report(suite: str, versions: list[Version]) -> int:
    """Print the means, and their ratios to the first version's."""
    print(f"{suite}; mean of {len(versions[0].seconds[COLD])} rounds, the whole command")
    print(f"{'':22s} {'cold s':>8s} {'ratio':>6s} {'warm s':>8s} {'ratio':>6s}")
    means = [{state: sum(s) / len(s) for state, s in version.seconds.items()} for version in versions]
    for version, mean in zip(versions, means, strict=True):
        ratios = {state: mean[state] / means[0][state] for state in mean}
        print(
            f"{version.name:22s} {mean[COLD]:8.1f} {ratios[COLD]:6.3f} {mean[WARM]:8.1f} {ratios[WARM]:6.3f}"
        )
    print(f"bound of this version, cold: {BOUND:.2f}")
    return int(means[1][COLD] > BOUND * means[0][COLD])


if __name__ == "__main__":
    sys.exit(main())
