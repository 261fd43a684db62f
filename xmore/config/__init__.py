"""The configuration of runs: YAML files as pydantic models."""
