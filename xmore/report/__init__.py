"""HTML pages and what they show."""
