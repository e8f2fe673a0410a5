"""TOML files as editors write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.base.toml import read_toml


def test_a_file_with_a_byte_order_mark_reads(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes('name = "é"\n'.encode("utf-8-sig"))
    assert read_toml(tmp_path / "a.toml", "suite") == {"name": "é"}


@pytest.mark.parametrize("path", [r"C:\data", r"C:\users\me", r"D:\xray"])
def test_a_windows_path_in_a_string_says_how_to_write_it(path: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f'dataset = "{path}"\n')
    with pytest.raises(
        InputError, match=r"not valid TOML: .*In TOML a path needs '\.\.\.' or forward slashes"
    ):
        read_toml(tmp_path / "a.toml", "suite")
