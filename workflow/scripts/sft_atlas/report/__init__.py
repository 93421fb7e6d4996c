"""Report: figures and one self-contained page, made from the tables alone."""
