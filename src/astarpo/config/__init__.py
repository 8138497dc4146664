"""Settings of every verb: frozen, bounded, nothing unknown accepted. Imports no torch."""

from astarpo.config.base import ComputeConfig, Config
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
from astarpo.config.train import AlgorithmConfig, TrainConfig

__all__ = [
    "AlgorithmConfig",
    "CompareConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "DemoConfig",
    "EstimateConfig",
    "EvaluateConfig",
    "ExperimentConfig",
    "ExportConfig",
    "ImportValuesConfig",
    "ReportConfig",
    "RunConfig",
    "RunsConfig",
    "SweepConfig",
    "TrainConfig",
    "WarmStartConfig",
]
