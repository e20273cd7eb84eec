"""Disk to batches: images, dataset layouts, generated sequences, records and the input pipeline."""
