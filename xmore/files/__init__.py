"""Files, locks, digests, YAML, SQL literals and progress: nothing specific to the field."""
