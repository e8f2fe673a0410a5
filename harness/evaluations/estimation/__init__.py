"""Estimates of accuracy on unlabelled sets."""
