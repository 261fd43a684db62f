"""A study: a run in one file, which others can read and run anew."""
