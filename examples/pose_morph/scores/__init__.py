"""Scores, each under a name that says how it is computed."""
