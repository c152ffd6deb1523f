"""Comparisons drawn from one table: in a terminal, as markdown, as one self-contained page."""
