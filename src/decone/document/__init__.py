"""Documents of blocks, for an HTML page, a terminal and markdown. Quick to import; knows nothing of models."""

from decone.document.blocks import Document, DocumentModel

__all__ = ["Document", "DocumentModel"]
