"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re

from harness.base.errors import InputError

_UNITS = {
    "B": 1,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


def parse_size(text: str) -> float:
    """Return the bytes of a size such as "50GB" or "1.5 TB"; a GB has 10^9 bytes, a GiB 2^30. Raises InputError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    if found is None or found[2].upper() not in _UNITS:
        raise InputError(f"{text!r} is no size. Write a number and B, kB, MB, GB or TB, as in 50GB")
    return float(found[1]) * _UNITS[found[2].upper()]


def size_text(count: float) -> str:
    """Write a number of bytes with three digits and its unit, as in "50 GB"."""
    unit = next((unit for unit in ("TB", "GB", "MB", "kB") if count >= _UNITS[unit.upper()]), "B")
    return f"{float(f'{count / _UNITS[unit.upper()]:.3g}'):g} {unit}"
