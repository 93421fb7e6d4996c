"""Stage *analyse*."""
