"""Stage *weights*."""
