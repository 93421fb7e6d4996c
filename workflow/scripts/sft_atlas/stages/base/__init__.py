"""Stage *base*."""
