"""Trains models by recipes: any architecture under any objective, on a suite's ID data, resumable and repeatable."""
