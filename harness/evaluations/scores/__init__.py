"""OOD scores: one set at a time, or a whole stream at once."""
