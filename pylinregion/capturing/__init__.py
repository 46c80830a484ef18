"""From a module to a network: traced, classified, checked against the module, and kept."""
