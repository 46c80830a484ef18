"""Exported archives, checked before torch sees them."""
