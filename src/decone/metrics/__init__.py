"""Measurements of tables, predictions and runs: pure functions on tensors, without models or files."""
