"""Artifacts on disk: schemas, digests and contracts."""
