"""What tests share: networks, references that share no code with the package, and how a run draws its part."""
