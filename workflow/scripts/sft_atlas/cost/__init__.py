"""What a study costs before anything is spent: hours, memory and disk of every job, from sizes and throughputs."""
