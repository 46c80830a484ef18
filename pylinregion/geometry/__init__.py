"""Frames, slices and meshes, and what can be said of them without a network."""
