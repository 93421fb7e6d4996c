"""Stage *train*: a run of supervised fine-tuning that can be killed at any moment and goes on where it was."""
