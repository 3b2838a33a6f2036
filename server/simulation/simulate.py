"""A whole simulation: prepare, federate, train the baselines, test everything, report. Each step goes on where it was.

RUN/  simulation.json  cohort/  sites/  federation/  baselines/  results/
      segmentations/  model.safetensors  manifest.json  summary.json  report.html
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from client.data.cases import Case
from server.aggregation import build
from server.report import write_report
from server.results import round_rows, site_rows
from server.simulation.baselines import baselines, train_baseline
from server.simulation.comparison import (
    Model,
    Test,
    compare_all,
    done,
    models_of,
    read_results,
    run_case,
    shown_slices,
)
from server.simulation.engine import run_federation
from server.simulation.pool import run_jobs, tick
from server.simulation.preparation import Prepared, check, prepare
from server.start import Origin, create_run
from server.store import RunStore
from server.summary import FEDERATED, Summary, Totals, Way, write_summary
from shared_model.checkpoint import MANIFEST, MODEL, read_json, readable, write_bytes, write_json
from shared_model.config import SimulationPlan, parse_config
from shared_model.errors import ConfigError
from shared_model.scores import score

SHOWN_CASES = 3
FEW_TEST_CASES = 20


class Observer(Protocol):
    """Watches a simulation, for progress bars."""

    def progress(self, step: str, done: int, total: int) -> None:
        """`done` of `total` units of a step are done."""

    def event(self, name: str, facts: dict[str, Any]) -> None:
        """Something happened in the federation (server/rounds.py)."""


@dataclass
class Run:
    """A simulation in its folder."""

    folder: Path
    simulation: SimulationPlan
    with_baselines: bool
    observer: Observer

    @property
    def store(self) -> RunStore:
        return RunStore(self.folder / "federation")

    def complete(self) -> Summary:
        """Do what is not yet done, and report.

        Raises:
            MtsunetError: bad input, or too few sites; what is done stays and is not done again.
        """
        started = time.monotonic()
        build(self.simulation.plan.aggregation)
        prepared = prepare(self.simulation, self.folder, self._bar("synthetic cohort"))
        cases = check(prepared, self.simulation, self.folder / "results" / "cache", self._bar("reading cases"))
        self._federate(prepared)
        if self.with_baselines:
            self._train_baselines(prepared)
        test = self._test(cases)
        self._note_seconds(time.monotonic() - started)
        return self._report(prepared, test, cases)

    def _bar(self, step: str) -> Callable[[int, int], None]:
        return partial(self.observer.progress, step)

    def _federate(self, prepared: Prepared) -> None:
        if not self.store.exists:
            run, plan = secrets.token_hex(8), self.simulation.plan
            origin = Origin(self.simulation.pretrained, self.simulation.start)
            create_run(self.store.folder, run, plan, origin)
        if not self.store.closed:
            run_federation(self.store, prepared.configs, self.simulation.processes, self.observer.event)
        final = self.store.model_folder(self.store.last_round())
        for name in (MODEL, MANIFEST):
            write_bytes(self.folder / name, (final / name).read_bytes())

    def _train_baselines(self, prepared: Prepared) -> None:
        plan = self.simulation.plan
        todo = [one for one in baselines(prepared.configs, self.folder / "baselines") if not one.done]
        initial = self.store.model_folder(0)
        jobs = [partial(train_baseline, one, plan, initial, tick) for one in todo]
        count = _Count(self._bar("baselines"), len(jobs) * plan.rounds * plan.training.local_steps)
        run_jobs(jobs, self.simulation.processes, count)

    def _test(self, cases: list[Case]) -> Test:
        sites = {terms.site: terms.tasks for terms in self.store.terms()[0]}
        baseline_folder = self.folder / "baselines" if self.with_baselines else None
        models: list[Model] = models_of(self.simulation.plan, self.folder, baseline_folder, sites)
        test = Test(
            plan=self.simulation.plan,
            models=tuple(models),
            cache=self.folder / "results" / "cache",
            results=self.folder / "results" / ("all" if self.with_baselines else "federated"),
            segmentations=self.folder / "segmentations",
            shown=tuple(case.id for case in cases[:SHOWN_CASES]),
        )
        todo = [case for case in cases if not done(test, case)]
        count = _Count(self._bar("test cases"), len(todo))
        run_jobs([partial(run_case, test, case) for case in todo], self.simulation.processes, count)
        return test

    def _note_seconds(self, seconds: float) -> None:
        """Seconds of all processes that worked on this run, breaks between them left out."""
        path = self.folder / "seconds.json"
        before = self._seconds() if path.exists() else 0.0
        write_json(path, {"seconds": before + seconds})

    def _seconds(self) -> float:
        path = self.folder / "seconds.json"
        with readable(path, "remove it, and resume: the time is counted anew"):
            return float(read_json(path)["seconds"])

    def _report(self, prepared: Prepared, test: Test, cases: list[Case]) -> Summary:
        plan = self.simulation.plan
        results = read_results(test.results, cases)
        rounds = round_rows(self.store)
        down, up = sum(row.bytes_down for row in rounds), sum(row.bytes_up for row in rounds)
        spent = {FEDERATED: sum(row.seconds for row in rounds)}
        ways = [
            Way(
                name=way,
                rows=score(rows, plan.seed),
                seconds=spent.get(way),
                bytes=down + up if way == FEDERATED else None,
            )
            for way, rows in results.items()
        ]
        summary = Summary(
            name=plan.name,
            seed=plan.seed,
            synthetic=plan.synthetic,
            plan=self.simulation.model_dump(mode="json"),
            plan_digest=plan.digest(),
            sites=site_rows(self.store, prepared.notes),
            rounds=rounds,
            test_cases=len(cases),
            ways=tuple(ways),
            comparisons=compare_all(results, plan.seed),
            totals=Totals(
                bytes_down=down,
                bytes_up=up,
                seconds=self._seconds(),
            ),
            caveats=(*prepared.caveats, *self._caveats(len(cases))),
        )
        write_summary(summary, self.folder / "summary.json")
        write_report(summary, shown_slices(test, cases, plan.synthetic), self.folder / "report.html")
        return summary

    def _caveats(self, test_cases: int) -> tuple[str, ...]:
        caveats = []
        if test_cases < FEW_TEST_CASES:
            caveats.append(f"{test_cases} test cases show that the path works; they say nothing of accuracy.")
        opened_without = [f"{row['site']}: {row['reason']}" for row in self.store.terms()[1]]
        caveats += [f"A site took no part in the run. {line}" for line in opened_without]
        return tuple(caveats)


class _Count:
    """Called once for each unit; reports the sum."""

    def __init__(self, report: Callable[[int, int], None], total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0
        if total:
            report(0, total)

    def __call__(self) -> None:
        self._done += 1
        self._report(self._done, self._total)


def new_run(folder: Path, simulation: SimulationPlan, with_baselines: bool, observer: Observer) -> Run:
    """A run in an empty folder.

    Raises:
        ConfigError: the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: is not empty", "name another folder with --out, or go on with --resume")
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    values = {"simulation": simulation.model_dump(mode="json"), "baselines": with_baselines}
    write_json(folder / "simulation.json", values)
    return Run(folder, simulation, with_baselines, observer)


def resumed_run(folder: Path, observer: Observer) -> Run:
    """The run that was begun in a folder.

    Raises:
        ConfigError: there is none.
    """
    path = folder / "simulation.json"
    try:
        values = read_json(path)
        simulation = parse_config(SimulationPlan, values["simulation"], str(path))
        return Run(folder.resolve(), simulation, bool(values["baselines"]), observer)
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder}: holds no run", "name the folder that a run was begun in") from None
