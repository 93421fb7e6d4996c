"""Stage *release*."""
