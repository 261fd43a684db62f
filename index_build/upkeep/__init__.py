"""Upkeep of memories: estimates before a re-index, garbage collection after it."""
