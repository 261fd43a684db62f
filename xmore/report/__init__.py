"""HTML pages, and the tables, plots and images in them."""
