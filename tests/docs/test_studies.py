"""Each study of benchmarks/studies is one command: it writes its table and its picture, here at a small size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks" / "studies"
SMALL = {
    "toys": ["--draws", "1"],
    "drift": ["--seeds", "1", "--size", "40", "--batches", "10"],
    "dse_change": ["--seeds", "1", "--test", "30", "--bank", "20"],
    "information": ["--draws", "1", "--points", "100", "--steps", "10"],
    "dynamics": ["--seeds", "1", "--epochs", "1", "--train", "300", "--test", "200"],
    "initialisation": ["--seeds", "1", "--epochs", "1", "--train", "300", "--test", "200"],
    "stability": ["--seeds", "1", "--epochs", "1", "--train", "600", "--test", "200", "--workers", "1"],
    "families": ["--seeds", "1", "--epochs", "1", "--train", "128", "--test", "100", "--workers", "1"],
    "estimation": [],
    "backbones": ["--run", "0"],
    "correlation": ["--train", "300", "--test", "200"],
    "flips": ["--train", "600", "--size", "160", "--runs", "1", "--shifts", "2", "--steps", "3"],
    "enigma": ["--seeds", "1", "--steps", "3", "--pool", "100", "--probe", "60", "--train", "300"],
}


def test_every_study_is_here() -> None:
    assert {path.stem for path in STUDIES.glob("*.py")} - {"common"} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_study_writes_its_table_and_its_picture(name: str, tmp_path: Path) -> None:
    root = Path(os.environ.get("OOD_HARNESS_DATA") or "absent")
    if name not in ("toys", "dse_change", "information") and not (root / "fashion_mnist").is_dir():
        pytest.skip(
            f"no real data: {root}/fashion_mnist is missing. Set OOD_HARNESS_DATA to a folder that holds it"
        )
    command = [
        sys.executable,
        str(STUDIES / f"{name}.py"),
        "--tables",
        str(tmp_path),
        "--pictures",
        str(tmp_path),
    ]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # others run beside it
    ran = subprocess.run([*command, *SMALL[name]], capture_output=True, text=True, check=False, env=alone)
    assert ran.returncode == 0, ran.stderr
    committed = pd.read_csv(ROOT / "results" / "studies" / f"{name}.csv")
    written = pd.read_csv(tmp_path / f"{name}.csv")
    assert list(written.columns) == list(committed.columns)
    assert len(written)
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
