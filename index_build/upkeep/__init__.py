"""Memories over time: estimates before, garbage collection after."""
