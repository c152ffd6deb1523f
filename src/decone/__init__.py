"""decone opens the narrow cone: training, measuring and mending token embeddings that degenerate.

The rooms are subpackages and are imported by name, so that one of them costs only what it needs:

    from decone import objectives, optim
"""

__version__ = "0.1.0"
