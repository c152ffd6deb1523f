"""How a loss over a large vocabulary is computed; no models, no files."""
