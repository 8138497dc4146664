"""A policy, problems to train on and two held-out ones, in one folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from astarpo.models.policy import save_model
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
    held_out = [
        replace(problem, id=f"held-out/{i}", prompt=({"role": "user", "content": f"Which {i}?"},))
        for i, problem in enumerate(digit_problems(2))
    ]
    write_problems(path / "q.parquet", held_out)
    return path
