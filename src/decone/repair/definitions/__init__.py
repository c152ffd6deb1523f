"""DefinitionEMB: rows of a table rebuilt from what a dictionary says of their tokens."""
