"""Tests on real data that lie outside the repository; each says so where they are not there."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("MTSUNET_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def real_data(name: str) -> Path:
    """A file or folder of the real data; the test is skipped, with this as its reason, where it is not there."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}; set MTSUNET_DATA to the folder of real data")
    return path
