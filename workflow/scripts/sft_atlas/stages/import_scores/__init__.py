"""Stage *import_scores*."""
