"""Runs: the loop on Accelerate, its configuration, checkpoints, logs and evaluation."""
