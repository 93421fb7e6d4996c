"""Stage *benchmark*."""
