"""Repairs change a table of embeddings without training the model, and can be taken back to the last byte."""
