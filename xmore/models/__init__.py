"""CLIP models: which, and what they make of images and texts."""
