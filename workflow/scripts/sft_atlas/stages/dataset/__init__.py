"""Stage *dataset*."""
