"""What runs can be told: YAML files as pydantic models."""
