"""A model on its device, and the one pass that extracts its features."""
