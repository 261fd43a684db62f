"""Downloads by img2dataset, each request bounded."""
