"""Test-time adaptation: adapters on streams of shifted ID data, and what a run of them comes to."""
