"""Trains models by recipes: any architecture with any objective, resumable and reproducible."""
