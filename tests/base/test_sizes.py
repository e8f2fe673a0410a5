"""Sizes as people write and read them."""

from __future__ import annotations

import pytest

from harness.base.errors import InputError
from harness.base.sizes import parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("50GB", 50e9), ("1.5 TB", 1.5e12), ("2 gib", 2 * 1024**3), ("0B", 0), (" 7 kB ", 7000)],
)
def test_a_size_is_read(text: str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "50", "GB", "-1GB", "1e3MB", "1,5GB", "5 parsecs", "nanGB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_600, "1000 kB"),
        (1.234e9, "1.23 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_a_size_is_written(size: float, text: str) -> None:
    assert size_text(size) == text
