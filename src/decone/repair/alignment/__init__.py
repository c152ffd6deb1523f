"""Definitions of the tokens of a vocabulary: the words of a lexicon matched with tokens."""
