"""Base of the results that people read: data as JSON, and a document drawn from it."""

import json
from abc import abstractmethod
from typing import Any

from pydantic import BaseModel

from decone.document.blocks import Document


class DocumentModel(BaseModel):
    """A result that is also a document; a notebook draws it by itself.

    Example:
        >>> from decone.document.blocks import Facts, Section, Title
        >>> class Greeting(DocumentModel):
        ...     name: str
        ...     score: float
        ...
        ...     def to_document(self) -> Document:
        ...         return Document(Title(self.name), (Section("facts", "", (Facts((("score", f"{self.score}"),)),)),))
        >>> Greeting(name="<b>", score=float("nan")).to_dict()
        {'name': '<b>', 'score': None}
        >>> "&lt;b&gt;" in Greeting(name="<b>", score=1.0)._repr_html_()
        True
    """

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values, by its published names; NaN and infinity become None."""
        content: dict[str, Any] = json.loads(self.model_dump_json(by_alias=True))
        return content

    @abstractmethod
    def to_document(self) -> Document:
        """The result as blocks, which a page, a terminal and markdown draw."""

    def _repr_html_(self) -> str:
        from decone.document import html

        return html.fragment(self.to_document())
