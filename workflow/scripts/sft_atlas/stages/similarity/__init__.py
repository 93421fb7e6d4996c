"""Stage *similarity*."""
