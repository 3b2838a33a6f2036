"""Frozen configurations, read from strict YAML.

`Plan` is what a coordinator fixes and every site sees; `SiteConfig` is what a hospital fixes for itself;
`SimulationPlan` is a plan with the sites of a federation on one machine.
"""

from shared_model.config.base import Config, Name, TaskNames
from shared_model.config.loading import AnyConfig, load_config, parse_config
from shared_model.config.plan import (
    AggregationConfig,
    ModelConfig,
    Plan,
    PrivacyConfig,
    ReleaseConfig,
    TrainingConfig,
    Variant,
)
from shared_model.config.simulation import PartitionedSites, PhantomCohort, SimulatedSite, SimulationPlan
from shared_model.config.site import DataConfig, Invitation, PolicyConfig, PrivacyPolicy, SiteConfig

__all__ = [
    "AggregationConfig",
    "AnyConfig",
    "Config",
    "DataConfig",
    "Invitation",
    "ModelConfig",
    "Name",
    "PartitionedSites",
    "PhantomCohort",
    "Plan",
    "PolicyConfig",
    "PrivacyConfig",
    "PrivacyPolicy",
    "ReleaseConfig",
    "SimulatedSite",
    "SimulationPlan",
    "SiteConfig",
    "TaskNames",
    "TrainingConfig",
    "Variant",
    "load_config",
    "parse_config",
]
