"""Analysis: from tables of scores, gains, predictors and weight changes to effects with intervals."""
