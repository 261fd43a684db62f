"""What all steps of a re-index share."""
