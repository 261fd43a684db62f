"""CLIP models: their specification, and the features of images and texts."""
