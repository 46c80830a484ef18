"""Regions and measures of a network while it trains: what, when, and where it goes."""
