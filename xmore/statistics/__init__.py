"""Confidence intervals and significance tests, as pure functions."""
