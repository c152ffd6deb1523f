"""Reading and writing files that come from strangers or must never be half-written; knows nothing of models."""
