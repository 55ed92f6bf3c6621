from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def plain(slow):
    """The slow plain patterns."""
    return slow("patterns")
