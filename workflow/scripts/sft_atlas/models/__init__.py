"""Models as files: opened, placed, kept small."""
