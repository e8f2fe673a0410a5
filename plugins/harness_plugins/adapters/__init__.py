"""Test-time adapters, which adapt a classifier to an unlabelled stream while it predicts."""
