"""The kinds of evaluation."""
