"""The run that is not trained yet: from fits, checks and published sets to a recipe."""
