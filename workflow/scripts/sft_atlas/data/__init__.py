"""From sources to normalised rows: datasets, samples drawn from them, and benchmark items."""
