"""What a job runs in: processes, signals, scratch, progress."""
