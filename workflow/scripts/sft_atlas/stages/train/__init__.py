"""Stage *train*."""
