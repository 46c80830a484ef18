"""Counting around points: local complexity, patterns, and what can be counted of a model."""
