"""Lexicons: words and what they mean, read lazily from WordNet, Wiktionary or a table of one's own."""

from decone.data.lexicons.lexicon import FORMATS, Lexicon, Source, recognise
from decone.data.lexicons.sense import Sense

__all__ = ["FORMATS", "Lexicon", "Sense", "Source", "recognise"]
