"""One cell of benchmarks.scale, in a process of its own: a federation of so many sites, and where its time went.

python -m benchmarks.scale_run CELL --out FOLDER
"""

import server.simulation.environment  # noqa: F401  (before Flower, Ray and torch)

# isort: split
import argparse
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale_cost import Outcome, outcome
from benchmarks.scale_memory import Memory
from benchmarks.scale_nodes import two_nodes
from client.data.cache import CaseCache
from client.data.phantom import make_cohort
from client.data.reading import read_cases
from server.journal import Journal
from server.memory import Memory as RuleMemory
from server.simulation.engine import run_federation
from server.simulation.preparation import UNBOUND
from server.simulation.reaper import watch
from server.start import Origin, create_run
from server.store import RunStore
from shared_model import wire
from shared_model.checkpoint import remove_folder, write_json
from shared_model.config import PhantomCohort, Plan, SiteConfig, parse_config
from shared_model.parameters import Tensors

FETS = (511, 382, 47, 35, 35, 34, 33, 30, 22, 15, 14, 13, 12, 11, 9, 8, 8, 7, 6, 6, 5, 4, 4)
"""Cases of each institution of FeTS 2022."""
FETS_SHARE = 32
"""Each FeTS institution has one synthetic patient for so many of its cases, and two at least."""
PATIENTS = 2
"""Of each site where sizes are equal: one to train on and one held out."""
COHORT = PhantomCohort(patients=72, test_patients=8, voxel_mm=4.0)
SEED, STEPS, PROCESSES = 31, 1, 2


@dataclass(frozen=True)
class Cell:
    """A federation to run: patients of each site, and whether on a cluster of two nodes with one CPU each."""

    sizes: tuple[int, ...]
    rounds: int = 2
    cluster: bool = False


_FETS_SIZES = tuple(max(PATIENTS, round(cases / FETS_SHARE)) for cases in FETS)
CELLS = {
    "4": Cell((PATIENTS,) * 4),
    "23-fets": Cell(_FETS_SIZES),
    "23-fets-two-nodes": Cell(_FETS_SIZES, cluster=True),
    "100": Cell((PATIENTS,) * 100, rounds=1),
}


class NotedStore(RunStore):
    """Notes in the run's journal when an answer is to be spooled, and when a round's model is to be committed."""

    def __init__(self, folder: Path, states: dict[str, Path]) -> None:
        super().__init__(folder)
        self._journal, self._states = Journal(folder), states

    def spool(self, update: wire.Update, tensors: Mapping[str, np.ndarray], norm: float) -> None:
        results = self._states[update.site] / "results" / f"{update.run}.json"
        facts = {"round": update.round, "site": update.site, "evaluated": results.stat().st_mtime}
        self._journal.note("admitted", facts)
        super().spool(update, tensors, norm)

    def commit(
        self,
        index: int,
        tensors: Tensors,
        sha: str,
        sites: list[str],
        record: dict[str, Any],
        memory: RuleMemory | None = None,
        change: Tensors | None = None,
    ) -> None:
        self._journal.note("reduced", {"round": index})
        super().commit(index, tensors, sha, sites, record, memory, change)


def site_configs(sizes: tuple[int, ...], cohort: Path, folder: Path) -> list[SiteConfig]:
    """Sites with so many patients each, none of them in two; each site is like the hospital whose patients it has."""
    hospitals = make_cohort(COHORT, cohort, SEED)[:-1]
    left = {hospital.name: [case.id for case in read_cases(hospital.data, "who2021")] for hospital in hospitals}
    configs = []
    for number, size in enumerate(sizes, start=1):
        hospital = max(hospitals, key=lambda one: len(left[one.name]))
        chosen, left[hospital.name] = tuple(left[hospital.name][:size]), left[hospital.name][size:]
        configs.append(
            SiteConfig(
                site=f"site-{number:03d}",
                data=hospital.data.model_copy(update={"cases": chosen}),
                tasks=hospital.tasks,
                held_out=0.3,
                minimum_cell=1,
                state=folder / "sites" / f"site-{number:03d}",
                policy=UNBOUND,
            )
        )
    return configs


def plan_of(rounds: int) -> Plan:
    values = {
        "name": "scale",
        "seed": SEED,
        "synthetic": True,
        "rounds": rounds,
        "training": {"local_steps": STEPS, "batch_size": 1, "crop": [32, 64, 32]},
    }
    return parse_config(Plan, values, "scale")


def run_cell(cell: Cell, cohort: Path, folder: Path) -> Outcome:
    """Run a federation in an empty folder. The cases are read once beforehand, as a simulation does."""
    configs = site_configs(cell.sizes, cohort, folder)
    for config in configs:
        cache = CaseCache(config.state / "cache")
        for case in read_cases(config.data, "who2021"):
            cache.get(case)
    create_run(folder / "federation", secrets.token_hex(8), plan_of(cell.rounds), Origin())
    store = NotedStore(folder / "federation", {config.site: config.state for config in configs})
    watch()
    memory = Memory(PROCESSES)
    with memory.watching(), two_nodes() if cell.cluster else nullcontext() as address:
        os.environ["RAY_ADDRESS"] = address or ""
        started = time.time()
        run_federation(store, configs, PROCESSES, Journal(store.folder).note)
    return outcome(store.folder, configs, started, memory, cell.cluster)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one cell of benchmarks.scale.")
    parser.add_argument("cell", choices=CELLS)
    parser.add_argument("--out", type=Path, required=True, help="gets the cohort and a folder for the cell")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    remove_folder(out / arguments.cell)
    found = run_cell(CELLS[arguments.cell], out / "cohort", out / arguments.cell)
    write_json(out / f"{arguments.cell}.json", asdict(found))
    remove_folder(out / arguments.cell)


if __name__ == "__main__":
    main()
