"""Settings of every verb: frozen, bounded, nothing unknown accepted. Imports no torch."""

from astarpo.config.base import ComputeConfig, Config
from astarpo.config.planning import PlanConfig, ResourcesConfig
from astarpo.config.runs import (
    CompareConfig,
    DemoConfig,
    ExperimentConfig,
    ReportConfig,
    RunConfig,
    RunsConfig,
    SweepConfig,
)
from astarpo.config.stages import (
    DataConfig,
    EstimateConfig,
    EvaluateConfig,
    ExportConfig,
    ImportValuesConfig,
    WarmStartConfig,
)
from astarpo.config.tools import ChatConfig, EnvConfig, PushConfig, RecipesConfig
from astarpo.config.train import AlgorithmConfig, TrainConfig

VERBS: dict[str, type[Config]] = {
    "demo": DemoConfig,
    "run": RunConfig,
    "plan": PlanConfig,
    "data": DataConfig,
    "estimate": EstimateConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
    "sweep": SweepConfig,
    "warm-start": WarmStartConfig,
    "import-values": ImportValuesConfig,
    "export": ExportConfig,
    "report": ReportConfig,
    "runs": RunsConfig,
    "recipes": RecipesConfig,
    "chat": ChatConfig,
    "push": PushConfig,
    "env": EnvConfig,
}
"""The verbs and the settings of each."""

__all__ = [
    "VERBS",
    "AlgorithmConfig",
    "ChatConfig",
    "CompareConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "DemoConfig",
    "EnvConfig",
    "EstimateConfig",
    "EvaluateConfig",
    "ExperimentConfig",
    "ExportConfig",
    "ImportValuesConfig",
    "PlanConfig",
    "PushConfig",
    "RecipesConfig",
    "ReportConfig",
    "ResourcesConfig",
    "RunConfig",
    "RunsConfig",
    "SweepConfig",
    "TrainConfig",
    "WarmStartConfig",
]
