"""What a coordinator fixes and every site sees."""

from typing import Literal

from pydantic import Field, model_validator

from shared_model.config.base import Config, Name, TaskNames, known_tasks
from shared_model.tasks import CLASSES, TASKS

Variant = Literal["ours", "as-coded", "none"]


class ModelConfig(Config):
    """Which MTS-UNET."""

    preset: Literal["tiny", "base", "small"] = "tiny"
    """tiny: feature size 12, window 4. base and small: feature size 48, window 7 (BrainSegFounder-Tiny and -Small)."""
    tumor_aware: Variant = "ours"
    """The TAFE module; `as-coded` is the authors' family of code, `none` leaves it out."""
    cross_modality: Variant = "ours"
    """The CMD module, likewise."""
    patch_merging: Literal["current", "legacy"] = "current"
    """Slicing of MONAI's patch merging; BrainSegFounder's weights mean what they mean under `legacy` alone."""

    @model_validator(mode="after")
    def _variants_fit(self) -> "ModelConfig":
        chosen = {self.tumor_aware, self.cross_modality} - {"none"}
        if not chosen:
            raise ValueError("tumor_aware and cross_modality are both none: the class heads would have no input")
        if len(chosen) > 1:
            raise ValueError("tumor_aware and cross_modality mix ours with as-coded; set both alike, or one to none")
        return self


class TrainingConfig(Config):
    """One site's work in one round, the same at all sites."""

    local_steps: int = Field(10, ge=1, le=100_000)
    """Optimizer steps per site and round."""
    batch_size: int = Field(2, ge=1, le=256)
    """Crops per step."""
    crop: tuple[int, int, int] = (64, 64, 64)
    """Voxels along the three axes; multiples of 32 with at least 64 along one, or the bottleneck is a single voxel."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Peak of the schedule."""
    class_learning_rate: float = Field(1e-3, gt=0, le=1)
    """The same for TAFE, CMD and the class heads, which see one label a case where a region sees a volume."""
    warmup_steps: int = Field(10, ge=0)
    """Steps of linear warm-up, counted over rounds."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up, over all rounds: cosine to a hundredth of the peak, or the peak itself."""
    weight_decay: float = Field(1e-5, ge=0)
    """AdamW's decoupled weight decay."""
    clip_norm: float = Field(1.0, gt=0)
    """Bound on the L2 norm of a step's gradient."""
    modality_dropout: float = Field(0.1, ge=0, lt=1)
    """Chance that a present modality is hidden from a training crop; one always stays."""
    parts: tuple[Literal["all", "decoder", "adapters", "heads"], ...] = ("all",)
    """What is trained, and travels: everything; or some of the small decoder (its three last stages), low-rank adapters
    of the encoder, and the heads with what the class tasks share. All else stays as the run began."""
    adapter_rank: int = Field(8, ge=1, le=64)
    """Rank of the adapters, which are merged into the model after each round."""
    task_weights: dict[str, float] = Field(
        default_factory=lambda: {"wt": 1.0, "tc": 1.0, "et": 1.0, "idh": 2.26, "codeletion": 3.38, "grade": 1.33}
    )
    """Weight of each task in the loss (van der Voort 2023, near the inverse label frequency)."""

    @model_validator(mode="after")
    def _fits(self) -> "TrainingConfig":
        for size in self.crop:
            if size % 32 or size <= 0:
                raise ValueError(f"crop: {size} is no positive multiple of 32")
        if not self.parts or len(set(self.parts)) != len(self.parts) or ("all" in self.parts and len(self.parts) > 1):
            raise ValueError("parts: name each part once, or all alone")
        if max(self.crop) < 64:
            raise ValueError("crop: one side must be 64 or more, or instance norm sees one voxel at the bottleneck")
        known_tasks(tuple(self.task_weights))
        if missing := [name for name in TASKS if name not in self.task_weights]:
            raise ValueError(f"task_weights: no weight for {', '.join(missing)}")
        if any(weight < 0 for weight in self.task_weights.values()):
            raise ValueError("task_weights: a weight is negative")
        return self


class PrivacyConfig(Config):
    """Differentially private training, patient by patient. A site may use more noise, or decline (docs/privacy.md)."""

    noise: float = Field(1.0, ge=0)
    """Standard deviation of the noise over `clip`."""
    clip: float = Field(1.0, gt=0)
    """Bound on the L2 norm of one patient's gradient, which is cut to it."""
    patients_per_step: float = Field(16, ge=1, le=10_000)
    """Patients that a step takes on average, drawn by chance; in the place of training.batch_size."""
    crops_per_patient: int = Field(1, ge=1, le=16)
    """Crops of each of them; together they are one sample."""
    delta: float = Field(1e-5, gt=0, le=1e-3)
    """Chance that the bound of epsilon does not hold; a site allows at most 1e-5 and 1/10 of 1 over its patients."""
    required: bool = False
    """Whether a site that trains without privacy is turned away."""


class AggregationConfig(Config):
    """How replies become the next model."""

    rule: str = "fedavg"
    """Name of a rule in server/aggregation."""
    options: dict[str, float] = Field(default_factory=dict)
    """The rule's own settings, e.g. mu for fedprox (docs/coordinator.md)."""


class ReleaseConfig(Config):
    """Which round's model is released: said before any result is known. Only rounds that some site evaluated count."""

    rule: Literal["last", "best"] = "last"
    """last: the last round. best: the one with the highest pooled result of `task`; of equal ones the later."""
    task: str | None = None
    """For best, a task of the plan: a region's Dice or a class task's AUC, over what the sites disclose."""

    @model_validator(mode="after")
    def _rule_and_task_fit(self) -> "ReleaseConfig":
        if self.rule == "best" and self.task is None:
            raise ValueError("task: missing, the rule best looks at one")
        if self.rule == "last" and self.task is not None:
            raise ValueError("task: the rule last looks at none; leave it out, or set rule to best")
        return self


class Plan(Config):
    """What a coordinator fixes before round 1 and every site sees."""

    name: Name
    seed: int = Field(0, ge=0, lt=2**31)
    synthetic: bool
    """True where every site's data are generated: reports and releases then say so."""
    rounds: int = Field(10, ge=1, le=10_000)
    tasks: TaskNames = tuple(TASKS)
    grade_edition: Literal["who2021", "histologic"] = "who2021"
    """Which grade is trained: WHO 2021 (molecular criteria count) or the histologic one."""
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig())
    aggregation: AggregationConfig = Field(default_factory=lambda: AggregationConfig())
    compression: Literal["none", "fp16", "int8"] = "none"
    """How updates travel, and each next model to sites that hold the one before: as 32-bit numbers, or as the change in
    numbers of so many bits, scaled by channel and compressed. The first model travels whole."""
    privacy: PrivacyConfig | None = None
    """Differentially private training at the sites whose policy lets them; none if left out."""
    sites: tuple[Name, ...] = ()
    """The enrolled sites that take part; a simulation has its own."""
    minimum_sites: int = Field(2, ge=1)
    """A round needs the admitted replies of so many sites."""
    minimum_cases: dict[str, int] = Field(default_factory=dict)
    """Task -> labelled cases that the replies of a round must have between them."""
    round_minutes: float = Field(60, gt=0)
    """Deadline of a round: who has not answered by then is absent from it."""
    attempts: int = Field(2, ge=1, le=10)
    """How often the missing sites are asked in a round that is short of its quorum, before the run pauses."""
    maximum_cases: int = Field(10_000, ge=1)
    """Refuse a site that claims more cases than this for a task."""
    norm_limit: float = Field(10.0, gt=1)
    """Refuse an update so many times larger than the median of the round's others, and flag one as much smaller."""
    release: ReleaseConfig = ReleaseConfig()
    """By which rule the coordinator chooses the round whose model it releases."""

    @model_validator(mode="after")
    def _quorum_fits(self) -> "Plan":
        if len(set(self.sites)) != len(self.sites):
            raise ValueError("sites: a site is named twice")
        if self.sites and len(self.sites) < self.minimum_sites:
            raise ValueError(f"minimum_sites: {self.minimum_sites} of {len(self.sites)} sites can never answer")
        if strange := sorted(set(self.minimum_cases) - set(self.tasks)):
            raise ValueError(f"minimum_cases: '{strange[0]}' is no task of this plan")
        if self.release.task is not None and self.release.task not in self.tasks:
            raise ValueError(f"release.task: '{self.release.task}' is no task of this plan")
        if self.aggregation.rule == "fedadam" and "adapters" in self.training.parts:
            what = "aggregation.rule: fedadam remembers a tensor from round to round, and adapters begin anew in each"
            raise ValueError(f"{what}; leave them out of training.parts, or take another rule")
        return self

    @property
    def class_tasks(self) -> tuple[str, ...]:
        return tuple(task.name for task in CLASSES if task.name in self.tasks)
