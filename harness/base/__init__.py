"""What everything stands on: errors, files, keys, seeds, progress."""
