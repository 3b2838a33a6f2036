"""What a hospital fixes for itself."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shared_model.config.base import Config, Name, TaskNames


class DataConfig(Config):
    """Where a site's cases lie, and what they tell."""

    layout: str = "manifest"
    """manifest (a table of your own), bids, or the name of a public data set (docs/datasets.md)."""
    folder: Path
    """The folder that the layout starts from."""
    labels: Path | None = None
    """The label table. A manifest is a CSV with case, patient, idh, codel_1p19q, grade_histologic, grade_who2021, where
    blank is unknown; bids and the public data sets have a table of their own in the folder."""
    masks: Literal["regions", "1/2/4", "1/2/3", "whole-tumor"] | None = None
    """What segmentations mean: 1 core, 2 oedema and 4 or 3 enhancing (regions: either). whole-tumor: any non-zero voxel
    is tumour, and nothing is said of core and enhancing. Left out: regions, or what the public data set has."""
    cases: tuple[str, ...] | None = None
    """The cases to use; all if left out."""
    without_mask: tuple[str, ...] = ()
    """Cases whose segmentation is not to be used."""
    exclude: Path | None = None
    """Patients who are not to be used, e.g. who withdrew their consent: a text file, one patient a line."""
    mapping: Path | None = None
    """The BraTS mapping table, by which one patient is recognised in several data sets."""
    label_tables: dict[str, Path] = Field(default_factory=dict)
    """For BraTS: public data set -> its label table, which gives labels to the patients that came from it."""
    read_as: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Label -> word in a public table -> class or `unknown`, where you read a word differently."""

    def below(self, base: Path) -> "DataConfig":
        """The same with relative paths taken from `base`."""
        paths = {name: base / path for name in _PATHS if (path := getattr(self, name)) is not None}
        return self.model_copy(update={**paths, "label_tables": {k: base / v for k, v in self.label_tables.items()}})

    @model_validator(mode="after")
    def _manifest_has_a_table(self) -> "DataConfig":
        if self.layout == "manifest" and self.labels is None:
            raise ValueError("labels: a manifest is needed, or another layout")
        return self


_PATHS = ("folder", "labels", "exclude", "mapping")


class Invitation(Config):
    """What a hospital needs to join; the coordinator's `enrol` writes it."""

    site: Name
    """The name under which the hospital is enrolled."""
    address: str = Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")
    """Host and port of the coordinator's public port."""
    authority: str
    """Certificate of the authority that vouches for the coordinator (PEM)."""
    release_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Public key that released models are signed with."""


class PrivacyPolicy(Config):
    """The least that private training must keep at this hospital, whatever a plan asks (docs/privacy.md)."""

    mode: Literal["as-planned", "required", "never"] = "as-planned"
    """as-planned: privately where the plan has it. required: plans without it are declined. never: without, even where
    the plan has it; a plan may then turn this hospital away."""
    data_set: Name = "patients"
    """Name of the budget. Cases that were in one plan's training and are in another's must share it."""
    patients: int = Field(ge=1)
    """Training patients as you declare them, which the coordinator is told: a round number near the truth, chosen once.
    It is never counted from the data."""
    minimum_noise: float = Field(0.7, gt=0)
    """Where a plan asks less noise, this much is used."""
    clip: float = Field(1.0, gt=0)
    """Largest clipping norm."""
    epsilon_per_run: float = Field(8.0, gt=0)
    """Most that one run may cost."""
    epsilon: float = Field(16.0, gt=0)
    """Most that all runs together may cost."""
    delta: float | None = Field(None, gt=0, lt=1)
    """Largest delta; min(1e-5, 1/(10 patients)) if left out, and never more."""
    parts: tuple[Literal["all", "decoder", "adapters", "heads"], ...] = ("decoder", "adapters", "heads")
    """What a plan may train privately. Everything at once drowns in its own noise at a hospital's size."""

    @property
    def largest_delta(self) -> float:
        return self._bound if self.delta is None else self.delta

    @property
    def _bound(self) -> float:
        return min(1e-5, 1 / (10 * self.patients))

    @model_validator(mode="after")
    def _fits(self) -> "PrivacyPolicy":
        if self.delta is not None and self.delta > self._bound:
            raise ValueError(f"delta: {self.delta:g} is above {self._bound:g}, min(1e-5, 1/(10 patients))")
        if self.epsilon_per_run > self.epsilon:
            raise ValueError("epsilon_per_run: one run cannot cost more than all together")
        return self


class PolicyConfig(Config):
    """What this hospital does for a federation, whatever a plan asks. A plan beyond it is refused, with the reason."""

    approve_plans: bool = True
    """Whether each new plan waits for `mtsunet-client approve`."""
    rounds: int = Field(500, ge=1)
    """Most rounds of a run."""
    steps_per_round: int = Field(1000, ge=1)
    """Most optimizer steps in a round."""
    epochs_per_round: float = Field(20.0, gt=0)
    """Most passes over the hospital's cases in a round."""
    minutes_per_round: float = Field(240.0, gt=0)
    """After this time a round's work is ended, and the hospital is absent from the round."""
    minimum_cases: int = Field(11, ge=1)
    """Fewest training cases with which the hospital takes part."""
    releases: tuple[str, ...] = ()
    """Releases of the coordinator that are accepted; this client's own if left empty."""
    privacy: PrivacyPolicy | None = None
    """How this hospital trains with differential privacy; left out, it declines plans that have it."""
    metrics: tuple[Literal["dice", "auc"], ...] = ("dice", "auc")
    """Which results on held-out cases may leave, where enough cases stand behind them."""


class SiteConfig(Config):
    """What a hospital fixes for itself."""

    site: Name
    """Name of the hospital in the federation."""
    data: DataConfig
    """The cases that are trained and evaluated on, on a grid of 1 mm."""
    raw: DataConfig | None = None
    """Scans as they come, which `mtsunet-client prepare` turns into `data`: a manifest, whose paths may be folders of
    DICOM files, or bids."""
    tasks: TaskNames
    """The tasks that this site trains: declared, never derived from its data."""
    held_out: float = Field(0.2, ge=0, lt=1)
    """Share of the patients that are evaluated on and never trained on."""
    minimum_cell: int = Field(11, ge=1)
    """Smallest count of patients that may leave the site."""
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """What trains: cpu, cuda, or one GPU of several, e.g. cuda:1."""
    gpus: int = Field(1, ge=1)
    """GPUs that share out the crops of a training step, where device is cuda; private training takes one."""
    state: Path
    """Folder for what must outlive a process: key, cache, answers, audit log. Nobody else should write in it."""
    invitation: Path | None = None
    """The file that the coordinator sent back when it enrolled this hospital."""
    policy: PolicyConfig = Field(default_factory=lambda: PolicyConfig())
    """What this hospital does, whatever a plan asks."""
    health_port: int | None = Field(None, ge=1, le=65535)
    """Port of the standard gRPC health service, on loopback alone; none if left out."""

    @model_validator(mode="after")
    def _gpus_are_there(self) -> "SiteConfig":
        if self.gpus > 1 and self.device != "cuda":
            raise ValueError(f"gpus: {self.gpus} of them need device: cuda, not {self.device}")
        return self

    @property
    def key(self) -> Path:
        """The hospital's private key."""
        return self.state / "site.key"
