"""Data, not code: see README.md."""
