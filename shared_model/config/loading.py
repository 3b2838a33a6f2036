"""Strict YAML: an unknown key is an error that names it and says what is known."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from shared_model.config.base import Config
from shared_model.errors import ConfigError

LARGEST = 1 << 20
"""Bytes of a file."""
LONGEST_NUMBER = 40
"""Characters of a number."""
MOST_NODES = 100_000
"""Values and keys of a file whose aliases are written out: a few lines of them can stand for gigabytes."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses what no config needs: a key given twice, tags, endless numbers, and endless aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: a tag (!); leave it out")
        return super().compose_node(parent, index)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"aliases (*) that stand for more than {MOST_NODES} values")
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} characters")
        whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: key {key!r} is no text")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: '{key}' stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are once each alias is written out; without end where a node holds itself."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # what an alias within itself finds
        children = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_written_out(child, known) for child in children)
    return known[id(node)]


for _kind in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _StrictLoader.construct_number)

AnyConfig = TypeVar("AnyConfig", bound=Config)


def _known_keys(config: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Fields of the configuration that `location` (a pydantic error's path, its last part the unknown key) lies in."""
    model: Any = config
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _one_line(config: type[BaseModel], error: ValidationError) -> tuple[str, str]:
    """The first fault as (what, remedy); a mistyped key before the one that is missing for it."""
    faults = error.errors(include_url=False)
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    location = tuple(first["loc"])
    field = ".".join(str(part) for part in location)
    where = f"{field}: " if field else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(config, location)
        return f"{where}unknown key", f"known here are {', '.join(known)}"
    if first["type"] == "missing":
        return f"{where}missing", "add it"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}{message[:1].lower()}{message[1:]}", "mend this field"


def parse_config(config: type[AnyConfig], values: object, source: str) -> AnyConfig:
    """A configuration from plain values.

    Raises:
        ConfigError: naming `source`, the first field that is wrong, and the remedy.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: holds no mapping of keys to values", "write it as 'key: value' lines")
    try:
        return config.model_validate(values)
    except ValidationError as error:
        what, remedy = _one_line(config, error)
        raise ConfigError(f"{source}: {what}", remedy) from None


def load_config(config: type[AnyConfig], path: Path) -> AnyConfig:
    """Read a YAML file strictly.

    Raises:
        ConfigError: unreadable or too large a file, bad YAML, an alias or a tag, a key given twice, an unknown key, a
            value out of range.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: is larger than {LARGEST} bytes", "check that it is the right file")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})", "check the file") from None
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"{path}: bad YAML: {detail}", "mend the file") from None
    return parse_config(config, values, str(path))
