"""A captured network: its operators, and which of them bend."""
