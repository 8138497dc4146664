import subprocess
import sys

import torch

from astarpo.runtime.memory import device_memory_gib, peak_memory_gib, peak_resident_bytes


def test_memory_of_a_process_is_measured():
    before = peak_memory_gib()
    taken = torch.ones(100 << 18)  # 100 MiB, written to
    assert 0 < before <= peak_memory_gib()
    assert taken.sum() == len(taken)


def test_memory_of_a_gpu_counts_what_is_not_pytorchs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_memory_gib() == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30 << 30, 80 << 30))
    assert device_memory_gib() == {"device_memory_gib": 50.0}


def test_a_process_does_not_count_what_its_parent_had():
    code = "from astarpo.runtime.memory import peak_resident_bytes; print(peak_resident_bytes())"

    def peak_of_child() -> int:
        return int(subprocess.check_output([sys.executable, "-c", code]))

    before = peak_of_child()
    held = bytearray(2 * before)
    held[::4096] = b"\1" * len(held[::4096])
    assert peak_resident_bytes() > 2 * before
    assert peak_of_child() < 1.2 * before
