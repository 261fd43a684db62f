"""RECO: image and classes refined by a memory, trained (docs/reco.md)."""
