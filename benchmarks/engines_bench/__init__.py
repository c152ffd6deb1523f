"""Parts of `benchmarks/engines.py`: workloads, ways to compute a loss, clocks, memory, errors, rows, pictures."""
