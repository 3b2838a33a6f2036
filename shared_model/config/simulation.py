"""A plan with the sites of a federation on one machine."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shared_model.config.base import Config, Name, TaskNames
from shared_model.config.plan import Plan
from shared_model.config.site import DataConfig


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
    start: Path | None = None
    """The folder of a released model to start from, whoever signed it."""
    without_privacy: tuple[Name, ...] = ()
    """Sites that train without differential privacy where the plan has it."""
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
        if self.pretrained is not None and self.start is not None:
            raise ValueError("start: a run cannot start from pretrained weights and a released model; leave one out")
        return self
