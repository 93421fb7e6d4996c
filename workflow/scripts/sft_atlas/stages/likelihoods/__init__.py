"""Stage *likelihoods*."""
