"""Where a model keeps its embedding and its head, and a small decoder for the studies."""
