"""An untrained policy and digits for it; sums for a shipped policy, and two held-out ones."""

from pathlib import Path

import pytest

from astarpo.config import DataConfig
from astarpo.models.policy import save_model
from astarpo.stages.data import gather_problems
from astarpo.tasks.problem_set import write_problems
from tests.conftest import digit_problems


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/distributed/" in str(item.path):
            item.add_marker(pytest.mark.distributed)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, policy) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    save_model(path / "model", policy)
    write_problems(path / "p.parquet", digit_problems(24))
    for split, count in (("train", 24), ("test", 2)):
        sums = DataConfig(task="arithmetic", split=split, limit=count, out=path / "unused.parquet")
        name = {"train": "sums", "test": "held-out"}[split]
        write_problems(path / f"{name}.parquet", gather_problems(sums))
    return path
