"""TDA: caches of the images seen so far move the scores of later ones (docs/methods.md)."""
