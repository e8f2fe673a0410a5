"""Estimates of accuracy on unlabelled sets: what a run measures, and the table of it."""
