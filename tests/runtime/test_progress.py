import logging

from astarpo.runtime import progress
from astarpo.runtime.progress import Progress


def test_plain_lines_come_now_and_then(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="astarpo"), Progress("steps", 100, 10) as bar:
        for _ in range(40):
            now[0] += 1.0
            bar.advance(1, "reward 0.5")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "steps 26/100  1.2 min left  1/s  reward 0.5",
        "steps 42/100  1.0 min left  1/s  reward 0.5",
    ]
