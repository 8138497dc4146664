"""Has vLLM sample on a CPU as it does on a GPU: `pytest -p tests.support.gpu_runner`.

On a GPU vLLM 0.32 takes another runner than on a CPU ("Model Runner V2"), which samples by kernels
written in Triton, and it schedules a step while the last one still runs. Here Triton interprets
those kernels, which is slow but computes the same, and vLLM is kept from turning both off.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"
os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""


class _Driver:
    @staticmethod
    def is_active():
        return True


class _Backend:
    driver = _Driver


def pytest_collection_finish(session):
    """Changes vLLM, which is imported when the first test needs it."""
    from triton.backends import backends

    backends["cpu"] = _Backend  # which vLLM for CPUs asks for; an interpreter needs none
    from vllm.platforms.cpu import CpuPlatform

    as_on_cpu = CpuPlatform.check_and_update_config.__func__

    def as_on_gpu(cls, vllm_config):
        as_on_cpu(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    CpuPlatform.check_and_update_config = classmethod(as_on_gpu)
