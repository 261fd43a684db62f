"""Bytes of images, and their decoding within bounds."""
