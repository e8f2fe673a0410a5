"""Estimators of accuracy on unlabelled data."""
