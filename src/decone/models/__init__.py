"""Tables of a model, models of transformers and their text, and a small decoder for the studies."""
