"""A site's own results, which stay here, beside what the federation says of its released model."""

from rich.table import Table

from client.models import kept_models
from client.results import Results
from shared_model.checkpoint import MANIFEST
from shared_model.config import SiteConfig
from shared_model.errors import ConfigError
from shared_model.metrics import Record
from shared_model.released import parse_released
from shared_model.scores import METRICS, Row
from shared_model.tasks import TASKS


class Compared(Record):
    """A site's own results beside the federation's."""

    run: str
    synthetic: bool
    own_round: int | None
    """Round of the site's own results: the released one, or the last that it evaluated; None: it has none."""
    own: tuple[Row, ...]
    released_round: int | None
    """None: the released model was not fetched."""
    federation: tuple[Row, ...]
    """Over all sites. No entry: not disclosed."""


def compare(config: SiteConfig, run: str) -> Compared:
    """What the site knows of a run.

    Raises:
        ConfigError: nothing.
        WeightsError: the fetched model's manifest is damaged.
    """
    kept, synthetic = Results(config.state).read(run)
    path = kept_models(config) / run / MANIFEST
    released = parse_released(path.read_bytes(), str(path)) if path.exists() else None
    if not kept and released is None:
        raise ConfigError(f"run '{run}' has no results here", "fetch its model with: mtsunet-client models --get")
    own_round = released.round if released and released.round in kept else max(kept, default=None)
    return Compared(
        run=run,
        synthetic=synthetic or (released is not None and released.about["synthetic"]),
        own_round=own_round,
        own=() if own_round is None else kept[own_round].rows(),
        released_round=released.round if released else None,
        federation=released.pooled if released else (),
    )


def table(compared: Compared) -> Table:
    """For the terminal."""
    fetched = compared.released_round is not None
    shown = Table(
        title=f"run {compared.run}{', synthetic cases' * compared.synthetic}",
        caption="In brackets 95 % intervals. Not for clinical use."
        + "\nFetch the released model to see the federation's results." * (not fetched),
    )
    shown.add_column("task and metric")
    shown.add_column("this hospital" + (f", round {compared.own_round}" if compared.own else ""), justify="right")
    shown.add_column("federation" + (f", round {compared.released_round}" if fetched else ""), justify="right")
    own, federation = ({row.task: row for row in rows} for rows in (compared.own, compared.federation))
    for task in TASKS:
        if row := own.get(task) or federation.get(task):
            there = _pooled(federation.get(task)) if fetched else "not fetched"
            shown.add_row(f"{TASKS[task].title}: {METRICS[row.metric]}", _own(own.get(task)), there)
    return shown


def _own(row: Row | None) -> str:
    if row is None:
        return "no case"
    return f"{'undefined' if row.value is None else f'{row.value:.3f}'}, n = {row.n}"


def _pooled(row: Row | None) -> str:
    if row is None or row.value is None:
        return "not disclosed"
    interval = "" if row.low is None or row.high is None else f" ({row.low:.3f} to {row.high:.3f})"
    return f"{row.value:.3f}{interval}, n = {row.n}"
