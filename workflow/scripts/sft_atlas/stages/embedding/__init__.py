"""Stage *embedding*."""
