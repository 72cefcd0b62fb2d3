"""What the tests of methods share."""

from __future__ import annotations

import pytest

from dd_jax.store.artefacts import ArtefactStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of artefacts for the tests of one file."""
    return ArtefactStore(tmp_path_factory.mktemp("store"))
