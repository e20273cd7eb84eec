"""From record folders to batches of clips."""
