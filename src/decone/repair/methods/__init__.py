"""Repairs by name: the file name is the name. A new file in this folder is found without any list to edit."""
