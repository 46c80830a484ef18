"""The compiled extension, and everything that passes it an address."""
