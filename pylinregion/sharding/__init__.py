"""Work shared by processes, or larger than memory, in files."""
