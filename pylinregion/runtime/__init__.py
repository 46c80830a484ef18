"""Running a captured network on batches, fast."""
