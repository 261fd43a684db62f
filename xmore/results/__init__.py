"""Runs: their records, views, costs, comparisons."""
