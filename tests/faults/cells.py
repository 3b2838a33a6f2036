"""The kill matrix: states of a round by the process that is killed there, and the cells that cannot be."""

from dataclasses import dataclass

WHERE = {
    "selecting": "the loop is about to look which sites are connected",
    "sending": "one of two sites has its message",
    "training": "a site has begun to train",
    "uploading": "a site has kept its answer, and nothing of it is sent",
    "admitting": "an admitted reply is written, without its name yet",
    "reducing": "all replies are on disk",
    "committing": "the new model is written, without its name yet, and on its way to the sites",
    "evaluating": "a site is about to evaluate the final model",
}
"""State -> where exactly the kill falls."""
STATES = tuple(WHERE)
AT_SITE = ("training", "uploading", "evaluating")
"""States that one of the two sites is in, and not the round loop."""
CLIENT, WORKER, SERVER, EXECUTOR, LOOP = "client", "ClientApp", "coordinator", "executor", "round loop"
PROCESSES = {
    CLIENT: "`mtsunet-client` and its node",
    WORKER: "a message's process at a site",
    SERVER: "`mtsunet-server serve`",
    EXECUTOR: "the coordinator's `flower-superexec`",
    LOOP: "`flwr-serverapp`",
}


@dataclass(frozen=True, order=True)
class Cell:
    """One kill."""

    state: str
    process: str

    @property
    def possible(self) -> bool:
        """A message's process lives only while a site works on a message."""
        return self.process != WORKER or self.state in AT_SITE

    @property
    def name(self) -> str:
        return f"{self.state}-{self.process.replace(' ', '-')}"


CELLS = [Cell(state, process) for state in STATES for process in PROCESSES]
POSSIBLE = [cell for cell in CELLS if cell.possible]
CHOSEN = [
    Cell("uploading", CLIENT),
    Cell("training", WORKER),
    Cell("admitting", SERVER),
    Cell("sending", EXECUTOR),
    Cell("committing", LOOP),
]
"""Each process once, in the states where most is at stake: `make test-kills`."""
