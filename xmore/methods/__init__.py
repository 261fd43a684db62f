"""Methods: each computes class scores and never sees a label."""
