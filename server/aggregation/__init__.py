"""Aggregation rules. Each is one file in this folder that registers itself; `build` finds it by name."""

import importlib
import pkgutil

from server.aggregation.base import RULES, Rule
from shared_model.config import AggregationConfig, parse_config
from shared_model.errors import ConfigError

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def build(config: AggregationConfig) -> Rule:
    """The rule that a plan names, with the plan's options.

    Raises:
        ConfigError: an unknown rule or option.
    """
    if config.rule not in RULES:
        raise ConfigError(f"aggregation.rule: '{config.rule}' is unknown", f"known are {', '.join(sorted(RULES))}")
    return parse_config(RULES[config.rule], dict(config.options), "aggregation.options")
