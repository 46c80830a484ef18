"""From a network to stages: affine rows, and a piecewise linear unit on each."""
