"""Test-time adapters: what a classifier does with an unlabelled stream while it predicts."""
