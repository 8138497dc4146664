"""Problem files of an experiment. Training and held-out files share no problem."""

from collections.abc import Iterator, Sequence

from astarpo.config import DataConfig
from astarpo.experiments.plan import Experiment
from astarpo.stages.data import gather_problems, keep_apart
from astarpo.tasks.overlap import refuse_overlap
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Problem


def problem_files(experiment: Experiment) -> Iterator[tuple[DataConfig, Sequence[Problem]]]:
    """Every problem file with the problems that it holds or will hold, held-out files first."""
    seen = set()
    for variant in experiment.variants:
        train, test, *others = experiment.data_configs(variant)
        if train.out in seen:
            continue
        apart = keep_apart(train, test)
        yield apart.test, apart.held_out
        yield apart.train, apart.problems
        for config in others:
            held_out = read_problems(config.out) if config.out.exists() else gather_problems(config)
            refuse_overlap(apart.problems, held_out, (str(train.out), str(config.out)))
            if config.out not in seen:
                yield config, held_out
        seen |= {train.out, *(config.out for config in others)}
