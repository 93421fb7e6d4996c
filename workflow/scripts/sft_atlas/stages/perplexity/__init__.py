"""Stage *perplexity*."""
