"""Plans a suite, runs it model by model, and records the results. It names no kind of evaluation."""
