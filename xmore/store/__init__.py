"""Artifacts on disk: their schemas, digests and contracts."""
