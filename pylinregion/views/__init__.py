"""Models made of a model: a part of it, some of its inputs held, one of its outputs."""
