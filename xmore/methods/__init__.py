"""Methods: each gives class scores, and never sees a label."""
