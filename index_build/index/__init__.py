"""Nearest-neighbour indices: built, tuned, reused."""
