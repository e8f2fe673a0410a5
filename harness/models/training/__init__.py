"""Trains models by recipes: any architecture under any objective, resumable and repeatable."""
