"""What tests of Ray need."""

import importlib.util

import pytest

NEEDS_RAY = (
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: make test-ray"),
)
