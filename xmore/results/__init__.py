"""Runs: records, views, costs, metrics and comparisons."""
