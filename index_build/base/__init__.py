"""What all steps of a re-index stand on."""
