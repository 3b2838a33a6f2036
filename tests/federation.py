"""A federation in this process: the real sites, rounds, admission, store and rules; Flower's part is a plain call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from client.app import answer
from client.data.phantom import PhantomSite, make_cohort
from server.aggregation import build
from server.rounds import Answer, Federation
from server.simulation.preparation import UNBOUND
from server.store import RunStore
from shared_model import wire
from shared_model.config import Plan, SimulationPlan, SiteConfig, parse_config
from shared_model.network import build_network
from shared_model.parameters import Tensors, shared_state

Tamper = Callable[[wire.Header, Tensors], tuple[str, Tensors]]
"""Changes a site's answer on its way: (header, tensors) -> (header text, tensors)."""


@dataclass(frozen=True)
class Cohort:
    """The smallest built-in cohort, written once for all tests."""

    sites: list[PhantomSite]
    folder: Path

    def configs(self, state: Path) -> list[SiteConfig]:
        """Fresh site configs whose state lies in `state`; the cache of read cases is shared."""
        configs = []
        for site in self.sites[:-1]:
            (state / site.name).mkdir(parents=True, exist_ok=True)
            cache = state / site.name / "cache"
            if not cache.exists():
                shared = self.folder / "caches" / site.name
                shared.mkdir(parents=True, exist_ok=True)
                cache.symlink_to(shared, target_is_directory=True)
            configs.append(
                SiteConfig(
                    site=site.name,
                    data=site.data,
                    tasks=site.tasks,
                    held_out=0.2,
                    minimum_cell=1,
                    state=state / site.name,
                    policy=UNBOUND,
                )
            )
        return configs


def small_simulation(**plan: Any) -> SimulationPlan:
    """Two rounds of two steps on the smallest cohort; keywords change the plan."""
    values = {
        "name": "test",
        "seed": 3,
        "synthetic": True,
        "rounds": 2,
        "training": {"local_steps": 2, "batch_size": 1, "crop": [32, 64, 32], "warmup_steps": 1},
        **plan,
    }
    phantoms = {"patients": 8, "test_patients": 8, "voxel_mm": 4.0}
    return parse_config(SimulationPlan, {"plan": values, "phantoms": phantoms}, "test")


def make_small_cohort(folder: Path) -> Cohort:
    simulation = small_simulation()
    assert simulation.phantoms is not None
    return Cohort(make_cohort(simulation.phantoms, folder, simulation.plan.seed), folder)


@dataclass
class InProcess:
    """Transport that calls each site's `answer` when replies are asked for.

    Attributes:
        configs: the sites; a node is a site's name.
        tamper: for some sites, what becomes of their updates on the way.
        order: order in which sites answer.
        silent: sites that never answer.
        sent: headers of all messages sent, with the nodes.
    """

    configs: Sequence[SiteConfig]
    tamper: dict[str, Tamper] = field(default_factory=dict)
    order: Callable[[list[str]], list[str]] = sorted
    silent: tuple[str, ...] = ()
    sent: list[tuple[tuple[str, ...], wire.Header]] = field(default_factory=list)
    closed: bool = False

    def nodes(self) -> dict[str, str | None]:
        return dict.fromkeys(config.site for config in self.configs)

    def send(self, messages: Mapping[str, tuple[str, Tensors]], seconds: float) -> None:
        self._messages = dict(messages)
        self.sent.append((tuple(messages), wire.decode(next(iter(messages.values()))[0])))

    def receive(self, seconds: float) -> Iterator[Answer]:
        configs = {config.site: config for config in self.configs}
        for node in self.order(list(self._messages)):
            if node in self.silent:
                continue
            header, tensors = self._messages[node]
            text, out = answer(configs[node], header, dict(tensors))
            decoded = wire.decode(text)
            if node in self.tamper:
                text, out = self.tamper[node](decoded, out)
            yield Answer(node, text, out)

    def close(self) -> None:
        self.closed = True


@dataclass
class Events:
    """Keeps what the federation told."""

    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, name: str, facts: dict[str, Any]) -> None:
        self.seen.append((name, facts))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [facts for seen, facts in self.seen if seen == name]


def start(folder: Path, plan: Plan) -> RunStore:
    """A new run with freshly drawn weights."""
    torch.manual_seed(plan.seed)
    store = RunStore(folder)
    store.create("0123456789abcdef", plan, shared_state(build_network(plan.model, plan.tasks)), None)
    return store


def federate(
    store: RunStore,
    transport: InProcess,
    notify: Callable[[str, dict[str, Any]], None] | None = None,
    closing: bool = True,
) -> Events:
    """Complete the store's run over a transport; returns what was told. `notify` is told too.

    Without `closing` the sites are silent after the last round, which saves the evaluation of the final model.
    """
    events = Events()
    last = store.read()[1].rounds

    def tell(name: str, facts: dict[str, Any]) -> None:
        events(name, facts)
        if notify:
            notify(name, facts)
        if not closing and name == "committed" and facts["round"] == last:
            transport.silent = tuple(transport.nodes())

    Federation(store, build(store.read()[1].aggregation), transport, tell).complete()
    return events


def changed(change: Callable[[wire.Update, Tensors], tuple[wire.Update, Tensors]]) -> Tamper:
    """A tamper that changes updates alone."""

    def tamper(header: wire.Header, tensors: Tensors) -> tuple[str, Tensors]:
        if isinstance(header, wire.Update):
            header, tensors = change(header, dict(tensors))
        return wire.encode(header), tensors

    return tamper
