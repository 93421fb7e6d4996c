"""Stage *estimate*."""
