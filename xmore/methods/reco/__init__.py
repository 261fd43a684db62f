"""RECO: images and classes refined by a memory, with trained layers (docs/reco.md)."""
