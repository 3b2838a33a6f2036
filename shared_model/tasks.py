"""The six tasks: three overlapping tumour regions and three molecular or histological classes.

A task is the unit of everything that is partial here: a site declares its tasks, a case has a label or none for each,
a head belongs to one, and an update is averaged over the sites that trained it.
"""

from dataclasses import dataclass

MISSING = -1
"""The label of a case that has none for a class task. Missing is never negative."""

MODALITIES = ("t1", "t1ce", "t2", "flair")
"""Channel order of every image tensor."""


@dataclass(frozen=True)
class Task:
    """One output of the network.

    Attributes:
        name: key in configs, in the network's output and on the wire.
        title: how reports name it.
        classes: names of the classes in label order; empty for a region.
    """

    name: str
    title: str
    classes: tuple[str, ...] = ()

    @property
    def is_region(self) -> bool:
        return not self.classes

    @property
    def prefix(self) -> str:
        """Prefix of the parameters that belong to this task's head alone."""
        return f"heads.{self.name}."


REGIONS = (
    Task("wt", "whole tumour"),
    Task("tc", "tumour core"),
    Task("et", "enhancing tumour"),
)
CLASSES = (
    Task("idh", "IDH mutation", ("wildtype", "mutant")),
    Task("codeletion", "1p/19q co-deletion", ("intact", "codeleted")),
    Task("grade", "grade", ("2", "3", "4")),
)
TASKS: dict[str, Task] = {task.name: task for task in (*REGIONS, *CLASSES)}

GRADE_4 = CLASSES[2].classes.index("4")
