"""Test-time adaptation on streams of shifted ID data."""
