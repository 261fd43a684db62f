"""CODER: each image is compared with many texts per class (docs/coder.md)."""
