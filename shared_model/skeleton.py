"""A config file with every field explained, made from the config's own class."""

import textwrap
from pathlib import Path
from typing import Any

import yaml

from shared_model.config import Config

WIDTH = 100
UNBROKEN = 1_000_000
"""Width at which YAML breaks no line of a value."""


def skeleton(config: Config) -> str:
    """YAML text of a configuration: above each field its description; fields without a value stand as comments."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(config: Config, indent: str) -> list[str]:
    lines: list[str] = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        description = " ".join((field.description or "").split())
        lines += textwrap.wrap(
            description, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
        )
        if isinstance(value, Config):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif value is None:
            lines.append(f"{indent}# {name}:")
        else:
            lines.append(f"{indent}{name}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    plain = _plain(value)
    style = '"' if isinstance(plain, str) and "\n" in plain else None
    text = yaml.safe_dump(plain, default_style=style, default_flow_style=True, width=UNBROKEN)
    return str(text.strip().removesuffix("\n..."))


def _plain(value: Any) -> Any:
    """Only what YAML itself knows."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
