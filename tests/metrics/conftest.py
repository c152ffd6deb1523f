"""Fixtures of the metrics' tests."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches the checks of shape annotations off, as they are for users, who then meet the ValueError."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
