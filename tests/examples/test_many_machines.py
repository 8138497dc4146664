"""The files for Slurm and Kubernetes: what they would run, read as those would read it."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from astarpo.cli import parse

EXAMPLES = Path(__file__).parents[2] / "examples"
SBATCH = EXAMPLES / "slurm" / "estimate.sbatch"
JOB = EXAMPLES / "kubernetes" / "estimate-job.yaml"


@pytest.fixture
def run_shell(tmp_path):
    """Runs a shell with `astarpo` in its place; gives the config that its words stand for."""
    program = tmp_path / "bin" / "astarpo"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    def run(words, **variables):
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            words, env={"PATH": path, **variables}, capture_output=True, text=True, check=True
        )
        config, is_dry = parse(done.stdout.splitlines())
        assert not is_dry
        return config

    return run


def test_slurm(run_shell):
    subprocess.run(["bash", "-n", SBATCH], check=True)
    lines = [line.split() for line in SBATCH.read_text().splitlines()]
    options = dict(
        line[1].split("=") for line in lines if line[:1] == ["#SBATCH"] and "=" in line[1]
    )
    first, last = map(int, options["--array"].split("-"))
    assert first == 1
    for task in (first, last):
        variables = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(last)}
        assert run_shell(["bash", SBATCH], **variables).share == (task - 1, last)
    variables = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "2", "PARTS": "8"}
    assert run_shell(["bash", SBATCH], **variables).share == (4, 8)  # --array=3,5


def test_kubernetes(run_shell):
    job = yaml.safe_load(JOB.read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["completionMode"] == "Indexed"  # else no pod has an index
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what `backoffLimitPerIndex` needs
    (container,) = pod["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    parts = job["spec"]["completions"]
    assert int(variables["PARTS"]) == parts
    for index in range(parts):
        words = [*container["command"], *container["args"]]
        config = run_shell(words, JOB_COMPLETION_INDEX=str(index), **variables)
        assert config.share == (index, parts)
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
