"""Stage *evaluate*."""
