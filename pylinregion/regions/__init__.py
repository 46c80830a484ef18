"""Partitions of slices and traces of segments: what users get, and what is made of it."""
