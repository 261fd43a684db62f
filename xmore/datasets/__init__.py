"""Test datasets: cards, sources, prompts and downloads."""
