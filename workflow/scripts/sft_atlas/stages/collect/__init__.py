"""Stage *collect*."""
