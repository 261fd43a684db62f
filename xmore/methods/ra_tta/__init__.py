"""RA-TTA: class descriptions and the memory images that they find (docs/methods.md)."""
