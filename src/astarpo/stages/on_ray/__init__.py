"""Stage 1 on a Ray cluster: an engine in each actor, one writer in this process.

Shards wait in a queue here; an actor that has nothing to do gets the next one, and its rows come
back to be written. Actors come as the cluster has room for them, and may go: a shard whose actor
was lost is given to another one. One that takes its actor with it three times is left out, which is
said at the end; all others are done.

Ray Core is all of Ray that this needs. (Ray Data's actor pools hang when they hold every CPU, and
try a shard that kills its actor for ever.) Ray is imported only when it is asked for.
"""

from astarpo.stages.on_ray.cluster import require_ray
from astarpo.stages.on_ray.sampler import RaySampler

__all__ = ["RaySampler", "require_ray"]
