"""What a study declares, how it is read, and which cells follow from it."""
