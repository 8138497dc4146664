"""What tests of vLLM need."""

import pytest

from astarpo.engines.vllm.opening import is_installed

NEEDS_VLLM = (
    pytest.mark.vllm,
    pytest.mark.skipif(not is_installed(), reason="needs vLLM: make test-vllm"),
)
