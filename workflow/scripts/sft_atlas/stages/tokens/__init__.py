"""Stage *tokens*."""
