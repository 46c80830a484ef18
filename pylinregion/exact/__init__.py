"""From stages to cells, breakpoints, maps and decisions, each proven."""
