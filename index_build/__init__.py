"""Build a memory: embed image-text pairs, index them, publish snapshots. Plain functions."""
