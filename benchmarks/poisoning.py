"""One hostile hospital of five, against each aggregation rule: what it does to the model, and what a rule costs when
nobody attacks. On the synthetic cohort, from a model that five honest sites trained before.

    python -m benchmarks.poisoning [--out runs/poisoning] [--rounds 5]

Writes the table into docs/reliability.md. The look at norms (`norm_limit`) is off in all rows but the last three, so
that the rules themselves are seen.
"""

import argparse
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.poisoned_site import backdoor, label_flip, scaled, sign_flip, stamped
from benchmarks.tables import replace_table
from client.data.cache import CaseCache
from client.data.phantom import PhantomSite, make_cohort
from client.data.reading import read_cases
from client.evaluation import measure, predict
from client.learner import Learner
from server.simulation.preparation import UNBOUND
from server.store import RunStore
from shared_model import wire
from shared_model.config import DataConfig, PhantomCohort, Plan, SiteConfig, parse_config
from shared_model.metrics import Estimate, auc_statistic, estimate, mean_statistic
from shared_model.network import build_network
from shared_model.parameters import Tensors, digest, load_shared
from shared_model.scores import CaseResult
from shared_model.tasks import REGIONS
from tests.federation import InProcess, changed, federate, start

SEED, OTHER_SEED = 31, 32
COHORT = PhantomCohort(patients=24, test_patients=60, voxel_mm=3.5)
HOSTILE = "elm"
RUN = "0123456789abcdef"
WARM_ROUNDS = 10
OFF = 1e9
RULES = ("fedavg", "median", "trimmed-mean", "clipped-mean")
POISONED_STEPS = 40
"""Local steps of the backdoor's site, which does not keep to the plan."""
AT_HOME: dict[str, Callable[[DataConfig, Path], DataConfig]] = {
    "label flip": label_flip,
    "backdoor": backdoor,
    "backdoor x5": backdoor,
}
ON_THE_WAY: dict[str, Callable[[Tensors, Tensors], Tensors]] = {
    "sign flip": sign_flip,
    "x10": partial(scaled, 10),
    "backdoor x5": partial(scaled, 5),
}
ATTACKS = ("nobody", "label flip", "sign flip", "x10", "backdoor", "backdoor x5")
TRAINING = {
    "local_steps": 10,
    "batch_size": 2,
    "crop": [32, 64, 32],
    "learning_rate": 0.01,
    "class_learning_rate": 0.002,
    "warmup_steps": 20,
}


@dataclass(frozen=True)
class Cell:
    """One federation: a rule, an attack, and whether norms are looked at."""

    rule: str
    attack: str
    limit: float = OFF

    @property
    def name(self) -> str:
        return f"{self.rule} {self.attack} {self.limit:g}".replace(" ", "-")


@dataclass(frozen=True)
class Outcome:
    """What the federation's model does on the test cases."""

    dice: Estimate | None
    auc: Estimate | None
    missed: float
    """Share of the test cases whose tumour is missed: whole-tumour Dice below 0.5."""
    signed: float
    """The same with the backdoor's sign in each of them: what a backdoor is for."""
    refused: int
    """Replies whose norm was refused."""


def plan_of(rounds: int, rule: str = "fedavg", limit: float = OFF) -> Plan:
    values = {
        "name": "poisoning",
        "seed": SEED,
        "synthetic": True,
        "rounds": rounds,
        "training": TRAINING,
        "aggregation": {"rule": rule},
        "norm_limit": limit,
    }
    return parse_config(Plan, values, "poisoning")


def sites_of(folder: Path) -> tuple[list[PhantomSite], PhantomSite, PhantomSite]:
    """The four hospitals of the cohort, a fifth one, and the test set."""
    *four, test = make_cohort(COHORT, folder / "cohort", SEED)
    fifth = make_cohort(COHORT.model_copy(update={"test_patients": 8}), folder / "fifth", OTHER_SEED)[0]
    return four, fifth, test


def configs_of(folder: Path, state: Path, hostile: DataConfig | None = None) -> list[SiteConfig]:
    """The five sites, with fresh states below `state`; caches of read cases are kept beside the cohort."""
    four, fifth, _ = sites_of(folder)
    rows = [(site.name, site, site.data) for site in four] + [(HOSTILE, fifth, hostile or fifth.data)]
    return [
        SiteConfig(
            site=name, data=data, tasks=site.tasks, held_out=0.0, minimum_cell=1, state=state / name, policy=UNBOUND
        )
        for name, site, data in rows
    ]


def test_results(network: Any, plan: Plan, data: DataConfig, cache: Path) -> list[CaseResult]:
    """Every test case under a model."""
    kept = CaseCache(cache)
    cases = [kept.get(case) for case in read_cases(data, plan.grade_edition)]
    return [measure(case, predict(network, case, plan.training.crop, plan.tasks)) for case in cases]


def run_cell(folder: Path, cell: Cell, rounds: int) -> Outcome:
    """Train the cell's federation, unless it is there, and test its model."""
    torch.set_num_threads(1)
    plan, place = plan_of(rounds, cell.rule, cell.limit), folder / "cells" / cell.name
    store = RunStore(place / "run")
    if not store.closed:
        hostile = None
        _, fifth, _ = sites_of(folder)
        if cell.attack in AT_HOME:
            hostile = AT_HOME[cell.attack](fifth.data, _empty(place / "data"))
        warm = RunStore(folder / "warm" / "run").model(WARM_ROUNDS)
        store.create(RUN, plan, warm, None)
        configs = configs_of(folder, place / "sites", hostile)

        def tamper(update: wire.Update, tensors: Tensors) -> tuple[wire.Update, Tensors]:
            base = store.model(update.round - 1)
            if "backdoor" in cell.attack:
                tensors = trained_longer(configs[-1], plan, base, update.round)
            change = ON_THE_WAY.get(cell.attack)
            return update, _float32(change(base, tensors)) if change else tensors

        federate(store, InProcess(configs, tamper={HOSTILE: changed(tamper)}))
    network = build_network(plan.model, plan.tasks)
    load_shared(network, store.model(rounds))
    _, _, test = sites_of(folder)
    clean = test_results(network, plan, test.data, folder / "test-cache")
    signed = test_results(network, plan, test.data.model_copy(update=_signed(folder)), folder / "test-cache")
    refused = [row["reason"] for index in range(1, rounds + 1) for row in store.record(index)["refused"]]
    if strange := [reason for reason in refused if "norm" not in reason]:
        raise RuntimeError(f"{cell.name}: a site took no part: {strange[0]}")
    return Outcome(*scores(clean), missed(clean), missed(signed), len(refused))


def trained_longer(config: SiteConfig, plan: Plan, base: Tensors, index: int) -> Tensors:
    """What the site's cases make of the base in POISONED_STEPS."""
    training = plan.training.model_copy(update={"local_steps": POISONED_STEPS})
    cases = read_cases(config.data, plan.grade_edition)
    learner = Learner(config, plan.model_copy(update={"training": training}), config.tasks, cases, [])
    learner.load(base)
    work = wire.Work(run=RUN, round=index, plan=plan.digest(), base=digest(base), settings={})
    return learner.train(work, {}).tensors


def scores(results: list[CaseResult]) -> tuple[Estimate | None, Estimate | None]:
    """Mean Dice over the three regions, and IDH AUC, each with a 95 % bootstrap interval over cases."""
    dices = np.array(
        [np.mean([row.regions[r.name].dice for r in REGIONS if not row.regions[r.name].empty]) for row in results]
    )
    labels = [row.labels["idh"] == 1 for row in results]
    auc = auc_statistic([row.probabilities["idh"][1] for row in results], labels)
    return estimate(mean_statistic(dices), len(results), SEED), estimate(auc, len(results), SEED)


def missed(results: list[CaseResult]) -> float:
    """Share of cases with a whole-tumour Dice below 0.5."""
    return float(np.mean([row.regions[REGIONS[0].name].dice < 0.5 for row in results]))


def prepare(folder: Path) -> None:
    """Cohorts, the warm model, and the test cases with the sign."""
    _, _, test = sites_of(folder)
    if not (folder / "signed" / "labels.csv").exists():
        stamped(test.data, _empty(folder / "signed"))
    store = RunStore(folder / "warm" / "run")
    if not store.closed:
        start(store.folder, plan_of(WARM_ROUNDS))
        federate(store, InProcess(configs_of(folder, folder / "warm" / "sites")))


def _signed(folder: Path) -> dict[str, Path]:
    return {"folder": folder / "signed" / "cases", "labels": folder / "signed" / "labels.csv"}


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _float32(tensors: Tensors) -> Tensors:
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def table(outcomes: dict[Cell, Outcome], rounds: int) -> str:
    lines = [
        f"One of five sites, {rounds} rounds of {TRAINING['local_steps']} steps from a model of {WARM_ROUNDS} honest "
        f"rounds, one seed, {COHORT.test_patients} synthetic test cases, 95 % bootstrap over cases.",
        "",
        "| rule | attack | mean Dice | IDH AUC | tumour missed | with the sign | replies refused |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell, found in outcomes.items():
        rule = cell.rule if cell.limit == OFF else f"{cell.rule}, norms looked at"
        lines.append(
            f"| {rule} | {cell.attack} | {_words(found.dice)} | {_words(found.auc)} "
            f"| {found.missed:.2f} | {found.signed:.2f} | {found.refused} of {rounds} |"
        )
    return "\n".join(lines)


def _words(found: Estimate | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "-"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/poisoning"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    prepare(arguments.out)
    cells = [Cell(rule, attack) for attack in ATTACKS for rule in RULES] + [
        Cell("fedavg", attack, 5.0) for attack in ("x10", "backdoor", "backdoor x5")
    ]
    outcomes: dict[Cell, Outcome] = {}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = pool.map(run_cell, [arguments.out] * len(cells), cells, [arguments.rounds] * len(cells))
        for cell, outcome in zip(cells, found, strict=True):
            outcomes[cell] = outcome
            print(cell.name, asdict(outcome), flush=True)
    text = table(outcomes, arguments.rounds)
    print(text)
    replace_table(Path("docs/reliability.md"), "poisoning", text)


if __name__ == "__main__":
    main()
