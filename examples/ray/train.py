"""Stage 2 on a Ray cluster: Ray Train starts the workers, and each of them calls astarpo.train.

    pip install 'astarpo[ray]'             # on every machine
    ray start --head                       # and on the others: ray start --address HEAD:6379
    python examples/ray/train.py WORKERS model=... problems=... values=... out=... steps=100

Settings are those of `astarpo train`. Every machine has to see the paths. A worker that is lost is
started again, and training goes on from its last checkpoint.
"""

import sys
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

import astarpo


def work(settings):
    """What each worker does: the call that it would be without Ray."""
    begun = (Path(settings["out"]) / "config.json").exists()
    astarpo.train(**settings, resume=begun)


if __name__ == "__main__":
    settings = dict(word.split("=", 1) for word in sys.argv[2:])
    ray.init(address="auto")
    on_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    scaling = ScalingConfig(num_workers=int(sys.argv[1]), use_gpu=on_gpu)
    run = RunConfig(failure_config=FailureConfig(max_failures=3))
    TorchTrainer(work, train_loop_config=settings, scaling_config=scaling, run_config=run).fit()
