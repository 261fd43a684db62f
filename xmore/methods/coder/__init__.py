"""CODER: an image compared with many texts of each class (docs/coder.md)."""
