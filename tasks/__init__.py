"""Prefect tasks: one thin module per stage: read artifacts, call pure code, write one artifact."""
