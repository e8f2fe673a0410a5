"""Probes: one number for the features of a whole set."""
