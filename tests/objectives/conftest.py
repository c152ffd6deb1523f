"""An engine of its own for tests: chunked with one row per chunk, under the name `one-row`."""

from collections.abc import Iterator
from functools import partial

import pytest

from decone.engines import select
from decone.engines.chunked import chunked


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(select.ENGINES, "one-row", partial(chunked, chunk_bytes=1))
        yield
