"""Comparisons and tables of papers: the runs that make them, and the findings of their numbers together."""
