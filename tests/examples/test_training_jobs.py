"""The files that start a run on a cluster: what they would run, read as Slurm and KubeRay would."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from astarpo.cli import parse
from astarpo.config import TrainConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
SBATCH = EXAMPLES / "slurm" / "train.sbatch"
RAY_JOB = EXAMPLES / "kuberay" / "train.yaml"


@pytest.fixture
def cluster(tmp_path) -> dict[str, str]:
    """An environment in which Slurm's commands say what they would do."""
    programs = {
        "srun": 'printf "%s\\n" "$@"',
        "scontrol": 'echo node-1; echo node-2; test "$1 $2 $3" = "show hostnames node-[1-2]"',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_ID": "7",
    }


def after(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_slurm_starts_as_many_processes_as_the_recipe_is_told_of(cluster):
    subprocess.run(["bash", "-n", SBATCH], check=True)
    command = ["bash", SBATCH, "math", "runs/m", "--model", "Qwen/Qwen2.5-7B"]
    done = subprocess.run(command, env=cluster, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert after(words, "--nnodes") == "2"
    assert after(words, "--nproc-per-node") == "4"
    assert after(words, "--rdzv-endpoint") == "node-1:29500"
    assert words[words.index("-m") + 1] == "astarpo"
    config, _ = parse(words[words.index("astarpo") + 1 :])
    assert (config.recipe, str(config.out), config.model) == ("math", "runs/m", "Qwen/Qwen2.5-7B")
    assert set(config.set) == {"resources.nodes=2", "resources.devices=4"}


def test_slurm_asks_for_a_recipe_and_a_folder(cluster):
    done = subprocess.run(
        ["bash", SBATCH, "math"], env=cluster, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "a folder that all nodes see" in done.stderr


def test_kuberay_runs_both_stages():
    job = yaml.safe_load(RAY_JOB.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    shell, option, script = shlex.split(job["spec"]["entrypoint"])
    assert (shell, option) == ("bash", "-ec")
    stage1, stage2 = (shlex.split(line) for line in script.split(";"))
    estimated, _ = parse(stage1[1:])
    assert stage2[:2] == ["python", "/launch/train.py"]
    settings = dict(word.split("=", 1) for word in stage2[3:])
    trained = TrainConfig(**settings)
    assert (trained.model, trained.values) == (estimated.model, estimated.out)
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert int(stage2[2]) == workers["replicas"] * gpus == workers["maxReplicas"] * gpus
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    for pod, inside in ((head, head["containers"][0]), (workers["template"]["spec"], container)):
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in inside["volumeMounts"]} == volumes
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/launch", "/runs"} <= mounted
    assert (EXAMPLES / "ray" / "train.py").is_file()
