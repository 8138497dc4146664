import torch

from astarpo.runtime.memory import device_memory_gib, peak_memory_gib


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
