"""Probes: one number for a set of features, measured beside the scorers, and what the numbers of many models say."""
