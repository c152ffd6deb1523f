"""Which runs make a comparison or a paper's table, and what their numbers say together."""
