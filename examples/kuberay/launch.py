"""Starts `astarpo run` on the nodes of a Ray cluster: one torchrun on each, as Slurm would.

    python launch.py --nodes 8 --devices 8 RECIPE --out DIR [flags of astarpo run]

Ray places one task on each node; the first one's address is where the others meet. Never run on a
cluster.
"""

import argparse
import os
import socket
import subprocess
import sys

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@ray.remote(num_cpus=0)
def address() -> str:
    """A place on this node where the others can meet."""
    with socket.socket() as free:
        free.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


@ray.remote(num_cpus=0)
def run(command: list[str]) -> int:
    """Runs a command on this node, which sees all of its GPUs; returns its exit status."""
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Starts the nodes and waits for them; returns the worst of their exit statuses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, required=True, help="machines")
    parser.add_argument("--devices", type=int, required=True, help="GPUs of each")
    parser.add_argument("--spread", default="STRICT_SPREAD", help=argparse.SUPPRESS)
    given, words = parser.parse_known_args()
    ray.init(address=os.environ.get("RAY_ADDRESS"))
    bundle = {"CPU": 1.0} | (
        {"GPU": float(given.devices)} if ray.cluster_resources().get("GPU") else {}
    )
    group = placement_group([bundle] * given.nodes, strategy=given.spread)
    ray.get(group.ready())
    places = [PlacementGroupSchedulingStrategy(group, i) for i in range(given.nodes)]
    meeting = ray.get(address.options(scheduling_strategy=places[0]).remote())
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--nnodes", str(given.nodes), "--nproc-per-node", str(given.devices)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--rdzv-id", "astarpo"]
    command += ["-m", "astarpo", "run", *words]
    command += [
        "--set",
        f"resources.nodes={given.nodes}",
        "--set",
        f"resources.devices={given.devices}",
    ]
    running = [
        run.options(scheduling_strategy=place, num_gpus=bundle.get("GPU", 0)).remote(command)
        for place in places
    ]
    return max(ray.get(running))


if __name__ == "__main__":
    sys.exit(main())
