"""A model on its device, and the pass that extracts its features."""
