"""What a plan's folders hold: sites and test set with their cases, each patient in one place."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.data.cases import Case, Finding, LeftOut, Reading
from client.data.datasets import datasets
from client.data.reading import read
from client.data.split import split
from server.simulation.overlap import Overlap, without_overlaps
from server.simulation.partition import TISSUE_SOURCE_SITE, partition
from shared_model.config import DataConfig, PartitionedSites, SimulatedSite, SimulationPlan
from shared_model.errors import ConfigError, DataError

TEST = "test set"


@dataclass(frozen=True)
class Place:
    """A site, or a part of the test set.

    Attributes:
        name: of the site; that of TEST for the test set.
        data: where its cases lie; `cases` names those that are used.
        cases: those.
        terms: the plan's entry that it comes from; None for the test set.
    """

    name: str
    data: DataConfig
    cases: list[Case]
    terms: SimulatedSite | PartitionedSites | None = None


@dataclass
class Gathered:
    """All sites and the test set of a plan.

    Attributes:
        sites: in the plan's order.
        test: parts of the test set.
        overlaps: cases taken out because their patient is, or may be, elsewhere.
        skipped: site -> why it is left out of the plan's run.
        left_out: by site, rows and folders that give no case.
        findings: by site, what else there is to say of the data.
    """

    sites: list[Place] = field(default_factory=list)
    test: list[Place] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[LeftOut]] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)


def gather(simulation: SimulationPlan) -> Gathered:
    """Read the tables and folders of a plan without a cohort of its own; no image is opened.

    Raises:
        DataError, ConfigError: data that cannot be used; a folder that is not there and not to be skipped; two cases of
            the test set with one name.
    """
    edition = simulation.plan.grade_edition
    gathered = Gathered()

    def reading_of(name: str, data: DataConfig) -> Reading:
        found = read(data, edition)
        gathered.left_out.setdefault(name, []).extend(found.left_out)
        gathered.findings.setdefault(name, []).extend(found.findings)
        found.require()
        return found

    gathered.test = [Place(TEST, data, reading_of(TEST, data).cases) for data in simulation.test]
    for site in simulation.sites:
        if not _skipped(site.site, site, gathered):
            gathered.sites.append(Place(site.site, site.data, reading_of(site.site, site.data).cases, site))
    for entry in simulation.partitions:
        if not _skipped(entry.data.folder.name, entry, gathered):
            by = entry.by if isinstance(entry.by, Path) else TISSUE_SOURCE_SITE
            cases = reading_of(entry.data.folder.name, entry.data).cases
            for name, part in partition(cases, by, entry.smallest).items():
                gathered.sites.append(Place(name, entry.data, part, entry))
    _only_once((place.name for place in gathered.sites), "site")
    _remove_overlaps(gathered, simulation.mapping)
    if simulation.test_share:
        _draw_test(gathered, simulation.test_share, simulation.plan.seed)
    _only_once((case.id for place in gathered.test for case in place.cases), "case of the test set")
    for place in (*gathered.sites, *gathered.test):
        if not place.cases:
            raise DataError(f"{place.name}: no case is left", "take the site out of the plan, or its data elsewhere")
    return gathered


def _skipped(name: str, entry: SimulatedSite | PartitionedSites, gathered: Gathered) -> bool:
    folder = entry.data.folder
    if folder.is_dir():
        return False
    described = datasets().get(entry.data.layout)
    how = described.where if described else "check data.folder"
    if entry.missing == "stop":
        raise ConfigError(f"{folder}: no such folder, for {name}", f"{how}; or say 'missing: skip' in the plan")
    gathered.skipped[name] = f"its folder {folder} is not there"
    return True


def _only_once(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"plan: two of '{name}' as {what}", "leave one of them out")
        seen.add(name)


def _remove_overlaps(gathered: Gathered, mapping: Path | None) -> None:
    # the parts of the test set count as one place, and its patients stay there
    places = [(place.name, place.data, place.cases) for place in (*gathered.test, *gathered.sites)]
    kept, gathered.overlaps = without_overlaps(places, mapping)
    ids = {name: {case.id for case in cases} for name, cases in kept.items()}

    def cleaned(place: Place) -> Place:
        return replace(place, cases=[case for case in place.cases if case.id in ids[place.name]])

    gathered.test = [cleaned(place) for place in gathered.test]
    gathered.sites = [cleaned(place) for place in gathered.sites]


def _draw_test(gathered: Gathered, share: float, seed: int) -> None:
    sites = []
    for place in gathered.sites:
        training, test = split(place.cases, share, seed)
        sites.append(replace(place, cases=training))
        if test:
            gathered.test.append(Place(TEST, place.data, test))
    gathered.sites = sites
