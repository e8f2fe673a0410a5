"""Plans a suite, runs it model by model, and records what it finds. It names no kind of evaluation."""
