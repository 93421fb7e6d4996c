"""Import: a table of scores from elsewhere becomes the input tables of the analysis."""
