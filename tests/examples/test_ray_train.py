"""Stage 2 by Ray Train: the example, as a user would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ray import NEEDS_RAY

pytestmark = [*NEEDS_RAY]

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray" / "train.py"


# A cluster and those who join it by its address would have to agree on a token otherwise.
OPEN = {"RAY_AUTH_MODE": "disabled"}


def run(words, **variables) -> None:
    env = {**os.environ, **OPEN, **variables}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.fixture
def cluster(tmp_path):
    """A cluster of one machine with two CPUs, until the test ends."""
    ray = Path(sys.executable).with_name("ray")
    port = "6399"
    words = [ray, "start", "--head", "--port", port, "--num-cpus", "2", "--block"]
    with (tmp_path / "ray.log").open("w") as log:
        process = subprocess.Popen(
            [*words, "--include-dashboard", "false"],
            env={**os.environ, **OPEN},
            stdout=log,
            stderr=log,
        )
        yield f"127.0.0.1:{port}"
        process.terminate()
        process.wait(timeout=60)


def test_a_worker_of_ray_train_trains(cluster, policy_path, problems_path, table_path, tmp_path):
    settings = {
        "model": policy_path, "problems": problems_path, "values": table_path,
        "out": tmp_path / "run", "steps": 4, "prompts_per_step": 8, "checkpoint_every": 1,
    }  # fmt: skip
    words = [f"{name}={value}" for name, value in settings.items()]
    run([sys.executable, EXAMPLE, "1", *words], RAY_ADDRESS=cluster)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 4
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    assert '"completed": true' in (tmp_path / "run" / "summary.json").read_text()
