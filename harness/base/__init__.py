"""Foundations of all other packages: errors, cache, digests, seeds, TOML, progress."""
