"""What all configurations have in common."""

import hashlib
import json
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared_model.tasks import TASKS


def known_tasks(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in TASKS:
            raise ValueError(f"'{name}' is no task; known are {', '.join(TASKS)}")
    if len(set(names)) != len(names):
        raise ValueError("a task is named twice")
    return tuple(name for name in TASKS if name in names)


TaskNames = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(known_tasks)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
"""Lower-case letters, digits and dashes: safe as a folder name on every system."""


class Config(BaseModel):
    """Base of all configurations: frozen, nothing unknown, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def canonical(self) -> str:
        """JSON with sorted keys, equal for equal configurations."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def __hash__(self) -> int:
        return hash(self.canonical())

    def digest(self) -> str:
        """sha256 of the canonical form, as hex."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()
