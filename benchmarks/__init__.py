"""One command for each figure that the README or docs quote."""
