"""Nearest-neighbour indices: build, tune, reuse."""
