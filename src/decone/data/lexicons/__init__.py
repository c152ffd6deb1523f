"""Lexicons: words and their meanings, read lazily from WordNet, Wiktionary or a table of one's own."""

from decone.data.lexicons.lexicon import FORMATS, Lexicon, SenseSource, recognise
from decone.data.lexicons.reading import Sense

__all__ = ["FORMATS", "Lexicon", "Sense", "SenseSource", "recognise"]
