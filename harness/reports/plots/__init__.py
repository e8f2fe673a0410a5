"""Pictures of a run's scores."""
