"""Diagnose: what the tables of a model look like, what the model does, and what to do about it."""
