"""Test datasets: cards, sources, prompts, downloads."""
