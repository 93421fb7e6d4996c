"""Stage *sample*."""
