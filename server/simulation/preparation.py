"""From a simulation plan to sites that can train: the cohort, a config for each site, and every case read once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from client.data.loading import CaseCache
from client.data.manifest import Case, read_cases
from shared_model.config import DataConfig, SimulationPlan, SiteConfig, load_config
from shared_model.errors import DataError

Progress = Callable[[int, int], None]
"""Told (done, of how many)."""


@dataclass(frozen=True)
class Prepared:
    """Sites and test set of a simulation.

    Attributes:
        configs: one for each site, its state below the run folder.
        test: the held-out cases.
        notes: what is special about a site, for the report.
    """

    configs: tuple[SiteConfig, ...]
    test: DataConfig
    notes: dict[str, tuple[str, ...]]


def load_plan(path: Path) -> SimulationPlan:
    """Read a plan; its relative paths are taken from the plan's folder.

    Raises:
        ConfigError: see load_config.
    """
    plan = load_config(SimulationPlan, path)
    base = path.resolve().parent

    def absolute(data: DataConfig) -> DataConfig:
        return data.model_copy(update={"folder": base / data.folder, "labels": base / data.labels})

    return plan.model_copy(
        update={
            "sites": tuple(site.model_copy(update={"data": absolute(site.data)}) for site in plan.sites),
            "test": None if plan.test is None else absolute(plan.test),
            "pretrained": None if plan.pretrained is None else base / plan.pretrained,
        }
    )


def prepare(simulation: SimulationPlan, folder: Path, progress: Progress) -> Prepared:
    """Make the built-in cohort, or take the plan's sites as they are.

    Args:
        folder: of the run; phantoms are written below it.
    """
    if simulation.phantoms is None:
        assert simulation.test is not None
        rows = [(site.site, site.data, site.tasks, site.held_out, site.minimum_cell) for site in simulation.sites]
        notes: dict[str, tuple[str, ...]] = {}
        test = simulation.test
    else:
        from client.data.phantom import make_cohort

        *sites, generated = make_cohort(simulation.phantoms, folder / "cohort", simulation.plan.seed, progress)
        rows = [(site.name, site.data, site.tasks, 0.2, simulation.phantoms.minimum_cell) for site in sites]
        notes = {site.name: (site.note,) for site in sites}
        test = generated.data
    configs = tuple(
        SiteConfig(
            site=name,
            data=data,
            tasks=tasks,
            held_out=held_out,
            minimum_cell=cell,
            device=simulation.device,
            state=folder / "sites" / name,
        )
        for name, data, tasks, held_out, cell in rows
    )
    return Prepared(configs, test, notes)


def check(prepared: Prepared, simulation: SimulationPlan, test_cache: Path, progress: Progress) -> list[Case]:
    """Read every case of every site and of the test set, so that what is wrong is said before training starts.

    Returns:
        The test cases.

    Raises:
        DataError: a table or file that cannot be used; a patient in two sites, or in a site and the test set.
    """
    edition = simulation.plan.grade_edition
    sites = [(config.site, config.state / "cache", read_cases(config.data, edition)) for config in prepared.configs]
    test = read_cases(prepared.test, edition)
    everything = [*sites, ("the test set", test_cache, test)]
    _no_patient_twice((name, cases) for name, _, cases in everything)
    total = sum(len(cases) for _, _, cases in everything)
    done = 0
    for _, cache, cases in everything:
        for case in cases:
            CaseCache(cache).get(case)
            done += 1
            progress(done, total)
    return test


def _no_patient_twice(groups: Iterable[tuple[str, list[Case]]]) -> None:
    owner: dict[str, str] = {}
    for name, cases in groups:
        for case in cases:
            if owner.setdefault(case.patient, name) != name:
                raise DataError(
                    f"case {case.id}: its patient is in {owner[case.patient]} and in {name}",
                    "keep each patient in one place; leave the case out by data.cases",
                )
