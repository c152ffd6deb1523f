"""An engine of its own for tests: chunked with one row per chunk, under the name `one-row`."""

from collections.abc import Iterator

import pytest
from tests.engines.one_row import one_row

from decone.engines import select


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(select.ENGINES, "one-row", one_row)
        yield
