"""OOD detection while a model adapts."""
