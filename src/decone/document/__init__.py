"""Documents of blocks, for an HTML page, a terminal and markdown. Quick to import; knows nothing of models."""

from decone.document.blocks import Document
from decone.document.model import DocumentModel

__all__ = ["Document", "DocumentModel"]
