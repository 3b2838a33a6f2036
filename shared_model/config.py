"""Frozen configurations, and strict YAML: an unknown key is an error that names it and says what is known.

`Plan` is what a coordinator fixes and every site sees; `SiteConfig` is what a hospital fixes for itself;
`SimulationPlan` is a plan with the sites of a federation on one machine.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared_model.errors import ConfigError
from shared_model.tasks import CLASSES, TASKS

Variant = Literal["ours", "as-coded", "none"]


def _known_tasks(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in TASKS:
            raise ValueError(f"'{name}' is no task; known are {', '.join(TASKS)}")
    if len(set(names)) != len(names):
        raise ValueError("a task is named twice")
    return tuple(name for name in TASKS if name in names)


TaskNames = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_tasks)]
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
    """Peak of the schedule: linear warm-up, then cosine to a hundredth over all rounds."""
    class_learning_rate: float = Field(1e-3, gt=0, le=1)
    """The same for TAFE, CMD and the class heads, which see one label a case where a region sees a volume."""
    warmup_steps: int = Field(10, ge=0)
    """Steps of linear warm-up, counted over rounds."""
    weight_decay: float = Field(1e-5, ge=0)
    """AdamW's decoupled weight decay."""
    clip_norm: float = Field(1.0, gt=0)
    """Bound on the L2 norm of a step's gradient."""
    modality_dropout: float = Field(0.1, ge=0, lt=1)
    """Chance that a present modality is hidden from a training crop; one always stays."""
    task_weights: dict[str, float] = Field(
        default_factory=lambda: {"wt": 1.0, "tc": 1.0, "et": 1.0, "idh": 2.26, "codeletion": 3.38, "grade": 1.33}
    )
    """Weight of each task in the loss (van der Voort 2023, near the inverse label frequency)."""

    @model_validator(mode="after")
    def _fits(self) -> "TrainingConfig":
        for size in self.crop:
            if size % 32 or size <= 0:
                raise ValueError(f"crop: {size} is no positive multiple of 32")
        if max(self.crop) < 64:
            raise ValueError("crop: one side must be 64 or more, or instance norm sees one voxel at the bottleneck")
        _known_tasks(tuple(self.task_weights))
        if missing := [name for name in TASKS if name not in self.task_weights]:
            raise ValueError(f"task_weights: no weight for {', '.join(missing)}")
        if any(weight < 0 for weight in self.task_weights.values()):
            raise ValueError("task_weights: a weight is negative")
        return self


class AggregationConfig(Config):
    """How replies become the next model."""

    rule: str = "fedavg"
    """Name of a rule in server/aggregation."""
    options: dict[str, float] = Field(default_factory=dict)
    """The rule's own settings, e.g. mu for fedprox."""


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
        return self

    @property
    def class_tasks(self) -> tuple[str, ...]:
        return tuple(task.name for task in CLASSES if task.name in self.tasks)


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
    privacy_floor: float | None = Field(None, gt=0)
    """Largest epsilon that a plan may cost; a plan without differential privacy is then refused."""
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
    state: Path
    """Folder for what must outlive a process: key, cache, answers, audit log. Nobody else should write in it."""
    invitation: Path | None = None
    """The file that the coordinator sent back when it enrolled this hospital."""
    policy: PolicyConfig = Field(default_factory=lambda: PolicyConfig())
    """What this hospital does, whatever a plan asks."""
    health_port: int | None = Field(None, ge=1, le=65535)
    """Port of the standard gRPC health service, on loopback alone; none if left out."""

    @property
    def key(self) -> Path:
        """The hospital's private key."""
        return self.state / "site.key"


class PhantomCohort(Config):
    """The built-in synthetic cohort: four hospitals that differ in scanner, grades, size and labels."""

    patients: int = Field(16, ge=8, le=5_000)
    """Patients of the largest site; the others have 3/4, 3/4 and 1/2 of it."""
    test_patients: int = Field(24, ge=8, le=5_000)
    """Held-out patients with full masks and labels, of all scanners."""
    voxel_mm: float = Field(3.0, ge=1, le=4)
    """Edge of a voxel."""
    minimum_cell: int = Field(1, ge=1)
    """Smallest count that leaves a generated hospital; nobody is behind it, so 1 will do."""


class SimulatedSite(Config):
    """One site of a simulation: a SiteConfig whose state the run folder keeps."""

    site: Name
    data: DataConfig
    tasks: TaskNames
    held_out: float = Field(0.2, ge=0, lt=1)
    minimum_cell: int = Field(11, ge=1)
    """As in SiteConfig; a plan on public data says 1 outright."""
    missing: Literal["stop", "skip"] = "stop"
    """What to do where the data's folder is not there; a skipped site stands in the report."""


class PartitionedSites(Config):
    """Sites made from one data set."""

    data: DataConfig
    by: Literal["tissue-source-site"] | Path
    """A table with Subject_ID and Partition_ID, as FeTS 2022 brings it; or the tissue source site in TCGA's names."""
    smallest: int = Field(8, ge=1)
    """Institutions with fewer cases than this become one site, `others`."""
    tasks: TaskNames
    held_out: float = Field(0.2, ge=0, lt=1)
    minimum_cell: int = Field(11, ge=1)
    missing: Literal["stop", "skip"] = "stop"
    """As in SimulatedSite."""


class SimulationPlan(Config):
    """A federation on one machine: the plan, and either the built-in cohort or sites with their folders."""

    plan: Plan
    phantoms: PhantomCohort | None = None
    sites: tuple[SimulatedSite, ...] = ()
    partitions: tuple[PartitionedSites, ...] = ()
    """Further sites, made from data sets that hold several institutions."""
    test: tuple[DataConfig, ...] = ()
    """Data sets that no site trains on and every model is tested on; with `phantoms` they are generated."""
    test_share: float = Field(0.0, ge=0, lt=1)
    """Share of each site's patients that goes to the test set instead."""
    mapping: Path | None = None
    """The BraTS mapping table, for all data sets: a patient who is in two of them is kept in one."""
    pretrained: Path | None = None
    """A BrainSegFounder file to start from."""
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    processes: int = Field(2, ge=1, le=256)
    """Virtual hospitals that train at the same time, one thread each."""

    @model_validator(mode="after")
    def _sites_fit(self) -> "SimulationPlan":
        if (self.phantoms is None) == (not self.sites and not self.partitions):
            raise ValueError("give either phantoms, or sites and partitions")
        if self.phantoms is None and not self.test and not self.test_share:
            raise ValueError("test: sites need a test set beside them, or a test_share of their own patients")
        if self.phantoms is not None and (self.test or self.test_share):
            raise ValueError("test: phantoms bring their own test set; leave test and test_share out")
        if (self.phantoms is not None) != self.plan.synthetic:
            raise ValueError("plan.synthetic must be true with phantoms and false with sites")
        names = [site.site for site in self.sites]
        if len(set(names)) != len(names):
            raise ValueError("sites: two sites have the same name")
        if self.pretrained is not None and self.plan.model.patch_merging != "legacy":
            raise ValueError("plan.model.patch_merging must be legacy for pretrained weights")
        return self


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""

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
    """The first fault as (what, remedy)."""
    first = error.errors(include_url=False)[0]
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
        ConfigError: unreadable file, bad YAML, a key given twice, an unknown key, a value out of range.
    """
    try:
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
