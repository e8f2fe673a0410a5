"""scores.parquet: one row per image and model, with what the model says and one column per scorer.

The rows of one model and seed are a part of their own, kept under scores/. The file joins all parts of the folder, so
it is complete after a run that resumed. Both are written in pieces: memory does not depend on the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.cache import replacing
from harness.base.digests import digest
from harness.reports.records import SCORES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

SAMPLES = "scores.parquet"
CHUNK = 4096  # rows in memory at once
MEANING = {
    "scores": "one column per scorer, named as on the board; higher = more OOD",
    "set": "id is ID test; the others are the suite's sets",
    "position": "of the image in its set, from 0",
    "prediction": "the class of the largest logit",
    "confidence": "the largest softmax probability",
}
_KEY = b"key"


@dataclass(frozen=True)
class PartPlace:
    """The part of one model and seed in a run's folder. `key` is a digest of all that its rows depend on."""

    folder: Path
    model: str
    seed: int
    key: str

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / SCORES / f"{digest('samples', self.model, self.seed)}.parquet"

    def is_written(self) -> bool:
        """Return whether the file holds these rows, undamaged."""
        return _key_of(self.path) == self.key and _is_intact(self.path)

    def write(self, scorers: Sequence[str], chunks: Iterable[Mapping[str, Any]]) -> None:
        """Write the rows, chunk by chunk: each has `set`, and columns of the table, all of one length."""
        import pyarrow as pa

        schema = _schema(scorers).with_metadata({_KEY: self.key.encode()})
        names = [f.name for f in schema]
        with replacing(self.path) as temporary, _writer(temporary, schema) as writer:
            for chunk in chunks:
                length = len(chunk["position"])
                whole = {"model": [self.model] * length, "seed": [self.seed] * length, **chunk}
                arrays = [pa.array(whole.get(f.name, [None] * length), f.type) for f in schema]
                writer.write_table(pa.Table.from_arrays(arrays, names=names).cast(schema))


def write_samples(folder: Path) -> None:
    """Join the parts of a run's folder into scores.parquet; nothing if there are none."""
    import pyarrow.parquet as pq

    parts = [path for path in (folder / SCORES).glob("*.parquet") if _key_of(path) is not None]
    first = {path: next(_rows(path), None) for path in parts}
    ordered = sorted(
        (path for path in parts if first[path] is not None),
        key=lambda path: (first[path]["model"][0].as_py(), first[path]["seed"][0].as_py()),  # type: ignore[index]
    )
    if not ordered:
        return
    fixed = len(_schema(()))
    scorers = dict.fromkeys(f.name for path in ordered for f in list(pq.read_schema(path))[fixed:])
    schema = _schema(sorted(scorers)).with_metadata({name: text for name, text in MEANING.items()})
    with replacing(folder / SAMPLES) as temporary, _writer(temporary, schema) as writer:
        for path in ordered:
            for batch in _rows(path):
                writer.write_batch(_widened(batch, schema))


def column(scorer: str) -> str:
    """Name the column of a scorer: its name on the board, unless the table has such a column already."""
    return f"{scorer} (scorer)" if scorer in _schema(()).names else scorer


def _schema(scorers: Iterable[str]) -> pa.Schema:
    import pyarrow as pa

    fixed = {
        "model": pa.string(),
        "seed": pa.int64(),
        "set": pa.string(),
        "path": pa.string(),
        "position": pa.int64(),
        "label": pa.int64(),
        "prediction": pa.int64(),
        "confidence": pa.float64(),
    }
    return pa.schema([*fixed.items(), *((name, pa.float64()) for name in scorers)])


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a file for writing, with checksums, which readers may verify."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema, write_page_checksum=True)


def _rows(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield from file.iter_batches(batch_size=CHUNK)


def _widened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    known = set(batch.schema.names)
    columns = [batch.column(f.name) if f.name in known else pa.nulls(batch.num_rows, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _is_intact(path: Path) -> bool:
    """Return whether every row of a part can be read, with its checksums."""
    import pyarrow as pa

    try:
        for _ in _rows(path):
            pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _key_of(path: Path) -> str | None:
    """Read a part's key; None if there is no such part, or it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return metadata[_KEY].decode() if _KEY in metadata else None
