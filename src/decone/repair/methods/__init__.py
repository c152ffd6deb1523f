"""Repairs by name: that of the file, hyphens for underscores. A new file in this folder is found without any list."""
