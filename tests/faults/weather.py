"""A federation of two cheap sites whose plan, sites and links a test chooses; world.py has its learner and halts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from server.store import RunStore
from tests.faults.world import PLAN, ROUNDS, SITES, KillWorld
from tests.federation import Cohort
from tests.network.world import World, free_ports, site_values, sites_of

ELSEWHERE = "127.0.0.2"
"""An address of this machine that no client takes for its own, so that a proxy stands between."""


class Weather(KillWorld):
    """Processes of one test; alder halts in `state` of round 2, if one is given.

    Args:
        plan, policy, settings: what stands in the plan, the sites' policies and the coordinator's config besides.
        environment: of all processes.
    """

    def __init__(
        self,
        folder: Path,
        cohort: Cohort,
        state: str = "",
        plan: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        proxy: str | None = None,
        sites: Sequence[str] = SITES,
        environment: dict[str, str] | None = None,
    ) -> None:
        World.__init__(self, folder, name=ELSEWHERE)
        folder.mkdir(exist_ok=True)
        self.state = state
        self.environment = environment or {}
        (folder / "hold").touch()
        public, admin = map(str, free_ports(2))
        self.command("init", "--name", self.name, "--port", public, "--admin-port", admin)
        config = self.coordinator.folder / "config.yaml"
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | (settings or {})))
        for site in sites:
            values = site_values(sites_of(cohort, folder)[site], tasks=PLAN["tasks"])
            self.site(site, values | {"policy": values["policy"] | (policy or {})})
        (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN | (plan or {})))
        self.server = self.serve()
        links = {"HTTPS_PROXY": proxy} if proxy else {}
        self.clients = {
            site: self._start(site, "client.cli", "--site", str(folder / site / "config.yaml"), **links)
            for site in sites
        }
        self.connected(*sites)
        self.follower = self._start("run", "server.cli", "run", "plan.yaml", *self._folder)

    def go_on(self) -> None:
        """Let what halted go on."""
        (self.folder / "hold").unlink()

    def present(self) -> list[list[str]]:
        """Whose replies each round is made of."""
        store: RunStore = self.store
        return [sorted(store.record(index)["sites"]) for index in range(1, store.last_round() + 1)]


Make = Callable[..., Weather]
"""Makes the federation of a test from choices by name, and closes it in the end."""
END_SECONDS = 400.0
ALL_PRESENT = [list(SITES)] * ROUNDS
