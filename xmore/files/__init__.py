"""Files, locks, digests, YAML, SQL literals, progress: nothing of the field."""
