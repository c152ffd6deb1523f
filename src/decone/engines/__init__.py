"""Engines: the computation of a loss over a large vocabulary; no models, no files."""
