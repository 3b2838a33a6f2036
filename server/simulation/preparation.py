"""From a simulation plan to sites that can train: the cohort, a config for each site, and every case read once."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.data.cache import CaseCache
from client.data.cases import Case
from client.data.reading import read_cases
from server.simulation.gathering import Gathered, Place, gather
from shared_model.checkpoint import read_json, readable, write_json
from shared_model.config import (
    DataConfig,
    PartitionedSites,
    PolicyConfig,
    PrivacyPolicy,
    SimulationPlan,
    SiteConfig,
    load_config,
    parse_config,
)
from shared_model.tasks import MODALITIES

UNBOUND = PolicyConfig(
    approve_plans=False,
    rounds=10_000,
    steps_per_round=100_000,
    epochs_per_round=100_000.0,
    minimum_cases=1,
)
"""A virtual hospital does what its researcher's plan asks."""
BEYOND_ALL = 1e9
Progress = Callable[[int, int], None]
"""Told (done, of how many)."""


@dataclass(frozen=True)
class Prepared:
    """Sites and test set of a simulation.

    Attributes:
        configs: one for each site, its state below the run folder.
        test: where the held-out cases lie.
        notes: what is special about a site, for the report.
        caveats: what the report should say of the data as a whole.
    """

    configs: tuple[SiteConfig, ...]
    test: tuple[DataConfig, ...]
    notes: dict[str, tuple[str, ...]]
    caveats: tuple[str, ...] = ()

    def test_cases(self, simulation: SimulationPlan) -> list[Case]:
        """The held-out cases, in order."""
        return [case for data in self.test for case in read_cases(data, simulation.plan.grade_edition)]


def load_plan(path: Path) -> SimulationPlan:
    """Read a plan; its relative paths are taken from the plan's folder.

    Raises:
        ConfigError: see load_config.
    """
    plan = load_config(SimulationPlan, path)
    base = path.resolve().parent
    mapping = None if plan.mapping is None else base / plan.mapping

    def absolute(data: DataConfig) -> DataConfig:
        data = data.below(base)
        return data if data.mapping else data.model_copy(update={"mapping": mapping})

    def partition(entry: PartitionedSites) -> PartitionedSites:
        by = base / entry.by if isinstance(entry.by, Path) else entry.by
        return entry.model_copy(update={"data": absolute(entry.data), "by": by})

    return plan.model_copy(
        update={
            "sites": tuple(site.model_copy(update={"data": absolute(site.data)}) for site in plan.sites),
            "partitions": tuple(partition(entry) for entry in plan.partitions),
            "test": tuple(absolute(data) for data in plan.test),
            "mapping": mapping,
            "pretrained": None if plan.pretrained is None else base / plan.pretrained,
            "start": None if plan.start is None else base / plan.start,
        }
    )


def prepare(simulation: SimulationPlan, folder: Path, progress: Progress) -> Prepared:
    """Make the built-in cohort, or gather the plan's sites; who is in which place is kept for a resumed run.

    Args:
        folder: of the run; phantoms are written below it.

    Raises:
        DataError, ConfigError: as `gather`.
    """
    if simulation.phantoms is not None:
        from client.data.phantom import make_cohort

        edition = simulation.plan.grade_edition
        *sites, generated = make_cohort(simulation.phantoms, folder / "cohort", simulation.plan.seed, progress)
        configs = tuple(
            SiteConfig(
                site=site.name,
                data=site.data,
                tasks=site.tasks,
                held_out=0.2,
                minimum_cell=simulation.phantoms.minimum_cell,
                device=simulation.device,
                state=folder / "sites" / site.name,
                policy=_policy(simulation, site.name, partial(read_cases, site.data, edition), 0.2),
            )
            for site in sites
        )
        return Prepared(configs, (generated.data,), {site.name: (site.note,) for site in sites})
    kept = folder / "sites.json"
    if not kept.exists():
        write_json(kept, _described(gather(simulation), simulation, folder))
    with readable(kept, "remove it: the plan's folders are read anew"):
        values = read_json(kept)
        return Prepared(
            tuple(parse_config(SiteConfig, site, str(kept)) for site in values["sites"]),
            tuple(parse_config(DataConfig, data, str(kept)) for data in values["test"]),
            {name: tuple(notes) for name, notes in values["notes"].items()},
            tuple(values["caveats"]),
        )


def _policy(
    simulation: SimulationPlan, site: str, cases: Callable[[], Sequence[Case]], held_out: float
) -> PolicyConfig:
    """A virtual hospital declares the patients that it can expect to train on."""
    if simulation.plan.privacy is None:
        return UNBOUND
    privacy = PrivacyPolicy(
        mode="never" if site in simulation.without_privacy else "as-planned",
        patients=max(1, round((1 - held_out) * len({case.patient for case in cases()}))),
        minimum_noise=1 / BEYOND_ALL,
        clip=BEYOND_ALL,
        epsilon_per_run=BEYOND_ALL,
        epsilon=BEYOND_ALL,
        parts=("all", "decoder", "adapters", "heads"),
    )
    return UNBOUND.model_copy(update={"privacy": privacy})


def _described(gathered: Gathered, simulation: SimulationPlan, folder: Path) -> dict[str, object]:
    """What was gathered, as plain values."""

    def chosen(place: Place) -> DataConfig:
        return place.data.model_copy(update={"cases": tuple(case.id for case in place.cases)})

    sites = []
    for place in gathered.sites:
        assert place.terms is not None
        sites.append(
            SiteConfig(
                site=place.name,
                data=chosen(place),
                tasks=place.terms.tasks,
                held_out=place.terms.held_out,
                minimum_cell=place.terms.minimum_cell,
                device=simulation.device,
                state=folder / "sites" / place.name,
                policy=_policy(simulation, place.name, partial(list, place.cases), place.terms.held_out),
            )
        )
    return {
        "sites": [site.model_dump(mode="json") for site in sites],
        "test": [chosen(place).model_dump(mode="json") for place in gathered.test],
        "notes": {place.name: notes for place in gathered.sites if (notes := _notes(place, gathered))},
        "caveats": _caveats(gathered),
    }


def _notes(place: Place, gathered: Gathered) -> list[str]:
    """What the report says of a site's data."""
    notes = []
    lacking = Counter("+".join(name for name in MODALITIES if name not in case.images) for case in place.cases)
    notes += [f"{count} of {len(place.cases)} cases lack {names}" for names, count in sorted(lacking.items()) if names]
    if without := sum(case.mask is None for case in place.cases):
        notes.append(f"{without} of {len(place.cases)} cases have no segmentation")
    if any(case.mask_values == "whole-tumor" for case in place.cases):
        notes.append("segmentations show the whole tumour alone")
    if taken := sum(overlap.place == place.name for overlap in gathered.overlaps):
        notes.append(f"{taken} cases left out, as their patients are elsewhere")
    return notes


def _caveats(gathered: Gathered) -> list[str]:
    caveats = [f"{name} took no part: {why}." for name, why in gathered.skipped.items()]
    for place in gathered.test:
        lacking = sum(len(case.images) < len(MODALITIES) for case in place.cases)
        if lacking:
            caveats.append(f"{lacking} of {len(place.cases)} test cases lack a modality.")
    return caveats


def check(prepared: Prepared, simulation: SimulationPlan, test_cache: Path, progress: Progress) -> list[Case]:
    """Read every case of every site and of the test set, so that what is wrong is said before training starts.

    Returns:
        The test cases.

    Raises:
        DataError: a table or file that cannot be used.
    """
    edition = simulation.plan.grade_edition
    sites = [(config.state / "cache", read_cases(config.data, edition)) for config in prepared.configs]
    test = prepared.test_cases(simulation)
    everything = [*sites, (test_cache, test)]
    total = sum(len(cases) for _, cases in everything)
    done = 0
    for folder, cases in everything:
        cache = CaseCache(folder)
        for case in cases:
            cache.get(case)
            done += 1
            progress(done, total)
    return test
