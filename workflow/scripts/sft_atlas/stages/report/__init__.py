"""Stage *report*."""
