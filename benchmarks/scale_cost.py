"""Where a simulation's time and memory went, round by round, from what its folder tells.

What the coordinator does stands in the run's journal, what a site does in its audit log, and when it had evaluated a
round's weights is when it wrote its results, which `benchmarks.scale_run` notes.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.scale_memory import Memory
from client.audit import AuditLog
from shared_model.config import SiteConfig


@dataclass(frozen=True)
class RoundCost:
    """Seconds of a round, which add up to it, and memory.

    Attributes:
        sending: from the last round's end, or the opening's, until the first site has the weights: the coordinator
            reads and hashes them, and Flower takes them.
        evaluation, training: of all sites, over the sites that work at the same time.
        carrying: the rest of the time until the last answer is on disk: messages between processes, and waiting.
        spooling: the part of it in which the coordinator writes answers, beside the sites' work.
        reduction: the answers become a model.
        commit: it is written.
        site_evaluation, site_training: mean of the sites.
        coordinator, worker: most memory of its own in the round, MB; of the workers, the largest one's.
    """

    sending: float
    evaluation: float
    training: float
    carrying: float
    spooling: float
    reduction: float
    commit: float
    site_evaluation: float
    site_training: float
    coordinator: float
    worker: float

    @property
    def seconds(self) -> float:
        return self.sending + self.evaluation + self.training + self.carrying + self.reduction + self.commit


@dataclass(frozen=True)
class Outcome:
    """Of a cell.

    Attributes:
        opening: seconds until all sites have opened the run, Ray's start among them.
        closing: seconds in which they evaluate the final model.
        coordinator, worker: most memory of its own in the run, MB.
    """

    sites: int
    patients: int
    cluster: bool
    opening: float
    closing: float
    rounds: list[RoundCost]
    coordinator: float
    worker: float
    synthetic: bool = True

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Outcome":
        return cls(**{**values, "rounds": [RoundCost(**row) for row in values["rounds"]]})


def outcome(folder: Path, configs: list[SiteConfig], started: float, memory: Memory, cluster: bool) -> Outcome:
    """What the journal in a run's folder, the sites' audit logs and the memory tell."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    work = {config.site: site_work(config.state) for config in configs}
    opened, closed = (next(row["time"] for row in events if row["event"] == name) for name in ("opened", "closed"))
    costs: list[RoundCost] = []
    begun = opened
    while rows := [row for row in events if row.get("round") == len(costs) + 1]:
        costs.append(round_cost(rows, work, len(costs) + 1, begun, memory))
        begun += costs[-1].seconds
    coordinator, worker = memory.largest(started, closed)
    return Outcome(
        sites=len(configs),
        patients=sum(len(config.data.cases or ()) for config in configs),
        cluster=cluster,
        opening=opened - started,
        closing=closed - begun,
        rounds=costs,
        coordinator=coordinator,
        worker=worker,
    )


def site_work(state: Path) -> list[tuple[float, float]]:
    """When a site was asked to train and when its update left, of each round."""
    found, asked = [], 0.0
    for row in map(json.loads, AuditLog(state).lines()):
        moment = datetime.fromisoformat(row["time"]).timestamp()
        if row["event"] == "asked to train":
            asked = moment
        elif row["event"] == "sent" and row["facts"]["kind"] == "update":
            found.append((asked, moment))
    return found


def round_cost(
    events: list[dict[str, Any]], work: dict[str, list[tuple[float, float]]], index: int, begun: float, memory: Memory
) -> RoundCost:
    """Of the events of a round that began when the one before ended."""
    admitted = {row["site"]: row for row in events if row["event"] == "admitted"}
    replied = {row["site"]: row["time"] for row in events if row["event"] == "reply"}
    reduced, committed = (
        next(row["time"] for row in events if row["event"] == name) for name in ("reduced", "committed")
    )
    spans = {site: work[site][index - 1] for site in replied}
    first, last = min(asked for asked, _ in spans.values()), max(replied.values())
    evaluation = sum(admitted[site]["evaluated"] - asked for site, (asked, _) in spans.items())
    training = sum(sent - admitted[site]["evaluated"] for site, (_, sent) in spans.items())
    coordinator, worker = memory.largest(begun, committed)
    return RoundCost(
        sending=max(0.0, first - begun),  # a model is sent while it is committed
        evaluation=evaluation / memory.workers,
        training=training / memory.workers,
        carrying=last - first - (evaluation + training) / memory.workers,
        spooling=sum(replied[site] - admitted[site]["time"] for site in replied),
        reduction=reduced - last,
        commit=committed - reduced,
        site_evaluation=evaluation / len(replied),
        site_training=training / len(replied),
        coordinator=coordinator,
        worker=worker,
    )
