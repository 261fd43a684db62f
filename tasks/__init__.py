"""Prefect tasks: one module a stage, thin: read artifact, call pure code, write artifact."""
