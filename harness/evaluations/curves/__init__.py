"""Curves: probes along the training of a model, epoch by epoch."""
