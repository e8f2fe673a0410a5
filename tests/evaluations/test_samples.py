"""scores.parquet says of every image what the model and every scorer say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from journals import read_journal
from PIL import Image
from sklearn.metrics import roc_auc_score
from toys import run_suite

from harness.reports import samples
from harness.reports.samples import MEANING, PartPlace, column, write_samples

FIXED = ["model", "seed", "set", "path", "position", "label", "prediction", "confidence"]


def read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "scores.parquet")


def test_every_image_has_a_row_from_which_every_number_follows(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["scorers"].append("gradient")
    run_suite(toy_suite, tmp_path)
    rows = read(tmp_path)
    assert list(rows.columns) == [*FIXED, "from_train", "gradient", "level", "margin"]
    assert len(rows) == 4 * 40
    assert rows.groupby("set")["position"].agg(list).map(lambda p: p == list(range(40))).all()
    ids = rows[rows["set"] == "id"]
    for record in (r for r in read_journal(tmp_path) if r["kind"] == "score"):
        ood = rows[rows["set"] == record["ood"]]
        values = np.concatenate([ids[record["scorer"]], ood[record["scorer"]]])
        auroc = roc_auc_score([0] * len(ids) + [1] * len(ood), values)
        assert auroc == pytest.approx(record["metrics"]["auroc"]["value"], abs=1e-12)
    (accuracy,) = (r for r in read_journal(tmp_path) if r["kind"] == "model")
    hits = (ids["label"] == ids["prediction"]).mean()
    assert hits == pytest.approx(accuracy["metrics"]["accuracy"]["value"])
    assert ids["confidence"].between(1 / 3, 1).all()  # of three classes
    metadata = pq.read_schema(tmp_path / "scores.parquet").metadata
    assert metadata[b"scores"] == MEANING["scores"].encode()


def test_images_of_a_folder_are_named_and_have_no_label_if_they_are_ood(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        Image.fromarray(np.full((4, 4), 60 * number, dtype=np.uint8)).save(photos / f"{number}.png")
    toy_suite["ood"] = [{"name": "photos", "dataset": f"hf:{photos}", "group": "far"}]
    run_suite(toy_suite, tmp_path / "out")
    rows = read(tmp_path / "out")
    mine = rows[rows["set"] == "photos"]
    assert [Path(path) for path in mine["path"]] == [photos / f"{number}.png" for number in range(4)]
    assert mine["label"].isna().all()
    assert rows[rows["set"] == "id"]["path"].isna().all()


def test_a_failed_scorer_and_an_encoder_leave_gaps(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"] = ["level", "nan"]
    toy_suite["models"] = [
        {"name": "network"},
        {"name": "network", "label": "bare", "params": {"classes": 0}},
    ]
    run_suite(toy_suite, tmp_path)
    rows = read(tmp_path)
    assert "nan" not in rows.columns
    assert set(rows["model"]) == {"network", "bare"}
    assert rows[rows["model"] != "network"][["prediction", "confidence"]].isna().all(axis=None)
    assert rows["level"].notna().all()


def test_a_run_that_resumes_or_adds_gives_the_whole_file(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["models"] = [{"name": "network", "seeds": [0]}]
    toy_suite["scorers"] = ["level"]
    run_suite(toy_suite, tmp_path)
    (tmp_path / "scores.parquet").unlink()
    result = run_suite(toy_suite, tmp_path)
    assert (result.measured, result.counts.forwarded) == (0, 0)
    assert len(read(tmp_path)) == 160

    toy_suite["models"] = [{"name": "network", "label": "second", "seeds": [1]}]
    toy_suite["scorers"] = ["margin"]
    run_suite(toy_suite, tmp_path)
    rows = read(tmp_path)
    assert rows.groupby(["model", "seed"]).size().to_dict() == {("network", 0): 160, ("second", 1): 160}
    assert rows[rows["model"] == "network"]["level"].notna().all()
    assert rows[rows["model"] == "network"]["margin"].isna().all()


def test_equal_runs_give_equal_bytes(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_suite(toy_suite, tmp_path / name)
    assert (tmp_path / "a/scores.parquet").read_bytes() == (tmp_path / "b/scores.parquet").read_bytes()


def test_it_is_written_in_pieces(
    toy_suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_suite(toy_suite, tmp_path / "whole")
    monkeypatch.setattr("harness.evaluations.scores.samples.CHUNK", 7)
    monkeypatch.setattr(samples, "CHUNK", 7)
    run_suite(toy_suite, tmp_path / "pieces")
    assert pq.ParquetFile(tmp_path / "pieces/scores.parquet").num_row_groups >= 160 // 7
    pd.testing.assert_frame_equal(read(tmp_path / "whole"), read(tmp_path / "pieces"))


def test_a_damaged_part_is_left_out_and_a_stopped_writer_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores/broken.parquet").write_bytes(b"PAR1 nonsense")
    write_samples(tmp_path)
    assert not (tmp_path / "scores.parquet").exists()

    def chunks() -> Any:
        yield {"set": ["id"], "position": [0], "level": [1.0]}
        raise KeyboardInterrupt

    place = PartPlace(tmp_path, "net", 0, "key")
    with pytest.raises(KeyboardInterrupt):
        place.write(["level"], chunks())
    assert not place.is_written()
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["broken.parquet"]


def test_a_scorer_named_like_a_column_keeps_its_own() -> None:
    assert column("label") == "label (scorer)"
    assert column("gen(gamma=0.5)") == "gen(gamma=0.5)"
