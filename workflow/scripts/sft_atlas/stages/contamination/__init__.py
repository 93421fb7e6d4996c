"""Stage *contamination*."""
