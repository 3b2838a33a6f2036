"""What the readers of data agree on: a case, the labels it may have, and what is said of those that cannot be used."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shared_model.errors import DataError
from shared_model.tasks import CLASSES, MISSING, REGIONS, TASKS

GradeEdition = Literal["who2021", "histologic"]
Severity = Literal["error", "warning", "note"]
MaskValues = Literal["regions", "1/2/4", "1/2/3", "whole-tumor"]
"""What a segmentation's voxels mean: 1 core, 2 oedema, and 4 or 3 enhancing (`regions`: either, but not both)."""

LABELS: dict[str, tuple[str, ...]] = {
    **{task.name: task.classes for task in CLASSES if task.name != "grade"},
    "grade_histologic": CLASSES[2].classes,
    "grade_who2021": CLASSES[2].classes,
}
"""The labels that a patient may have, with their classes in label order. Both editions of the grade are kept."""

UNKNOWN = dict.fromkeys(LABELS, MISSING)


@dataclass(frozen=True)
class Case:
    """One exam of one patient.

    Attributes:
        id: its name, one of its kind at a site and safe as a file name.
        patient: all cases of a patient carry the same.
        images: file of each modality that is present, in the order of MODALITIES.
        mask: the segmentation, or None.
        mask_values: what the segmentation's voxels mean.
        labels: class of each of LABELS, MISSING where it is unknown.
        grade_edition: which grade is the label of the task `grade`.
        brain_mask: non-zero in the brain, for images that are not skull-stripped.
        background: `zero`, or `corner` where the value of the first voxel stands for it.
        also: other names of this patient, in other data sets.
    """

    id: str
    patient: str
    images: dict[str, Path]
    mask: Path | None
    labels: dict[str, int]
    grade_edition: GradeEdition = "who2021"
    mask_values: MaskValues = "regions"
    brain_mask: Path | None = None
    background: Literal["zero", "corner"] = "zero"
    also: frozenset[str] = frozenset()

    @property
    def regions(self) -> tuple[str, ...]:
        """Region tasks that the mask tells; none without a mask."""
        if self.mask is None:
            return ()
        names = tuple(task.name for task in REGIONS)
        return names[:1] if self.mask_values == "whole-tumor" else names

    @property
    def classes(self) -> dict[str, int]:
        """Label of `idh`, `codeletion` and `grade`; MISSING where it is unknown."""
        return {
            task.name: self.labels[f"grade_{self.grade_edition}" if task.name == "grade" else task.name]
            for task in CLASSES
        }


@dataclass(frozen=True)
class Finding:
    """Something that a hospital or researcher should know about the data.

    Attributes:
        severity: `error`, the case or table cannot be used; `warning`, it can but may not be what was meant;
            `note`, a fact that nobody has to act on.
        where: the file, with row and column where there is one, or the case.
        what: what is the matter.
        remedy: what to do about it.
    """

    severity: Severity
    where: str
    what: str
    remedy: str

    @classmethod
    def of(cls, error: DataError) -> "Finding":
        where, _, what = error.what.rpartition(": ")
        return cls("error", where, what, error.remedy)

    def error(self) -> DataError:
        return DataError(f"{self.where}: {self.what}" if self.where else self.what, self.remedy)

    def __str__(self) -> str:
        return f"{self.severity}: {self.error()}"


@dataclass(frozen=True)
class LeftOut:
    """A row or folder that gives no case, and why."""

    what: str
    why: str


@dataclass
class Reading:
    """What was found at a site: every row and folder is a case, left out, or part of an error."""

    cases: list[Case] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def require(self) -> list[Case]:
        """The cases.

        Raises:
            DataError: the first error found.
        """
        for finding in self.findings:
            if finding.severity == "error":
                raise finding.error()
        return self.cases


NOT_CHOSEN = "not in data.cases"


def conflict(labels: dict[str, int]) -> str | None:
    """What contradicts itself in a patient's labels."""
    if labels["codeletion"] == 1 and labels["idh"] == 0:
        return "conflict, codeleted with an IDH-wildtype"
    return None


CONFLICT_REMEDY = "check both results; a 1p/19q-codeleted glioma is IDH-mutant, so blank the one that is wrong"


def has_label(case: Case, task: str) -> bool:
    """Whether a case can train a task."""
    return task in case.regions if TASKS[task].is_region else case.classes[task] != MISSING


def counts(cases: Sequence[Case]) -> dict[str, dict[str, int]]:
    """Cases of each region and of each class of each label."""
    found: dict[str, dict[str, int]] = {
        task.name: {"cases": sum(task.name in case.regions for case in cases)} for task in REGIONS
    }
    for label, classes in LABELS.items():
        found[label] = {name: sum(case.labels[label] == index for case in cases) for index, name in enumerate(classes)}
    return found
