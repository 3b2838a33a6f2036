"""A released model: the round that the plan's rule names, with what it is and a signature over all of it."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom

from server.card import Share, card
from server.coordinator import Coordinator
from server.results import round_rows, site_privacy
from server.store import RunStore
from server.summary import Round
from shared_model.checkpoint import MANIFEST, commit_folder, remove_folder, write_bytes, write_model
from shared_model.config import ReleaseConfig
from shared_model.errors import RunError
from shared_model.released import CARD, SIGNATURE, Chosen, Facts
from shared_model.signing import sign_release
from shared_model.wire import RELEASE


def release(coordinator: Coordinator, run: str, round: int | None = None) -> Path:
    """Write releases/RUN: model, manifest, card and signature, all of them or none.

    Args:
        round: this one, whatever the plan's rule says; the card then says so.

    Raises:
        ConfigError: no such run, or the release key cannot be read.
        RunError: released already, nothing committed, not closed, no such round, or no result to choose by.
        WeightsError: the round's model is damaged.
    """
    store = coordinator.run(run)
    place = coordinator.folder / "releases" / run
    if place.exists():
        raise RunError(f"run '{run}' is released already", "keep it: a release is never replaced; start another run")
    rounds = _closed_rounds(store, run)
    if round is None:
        row, chosen = choose(rounds, store.read()[1].release)
    elif 1 <= round <= len(rounds):
        row, chosen = rounds[round - 1], Chosen(rule="by hand")
    else:
        raise RunError(f"run '{run}' has no round {round}", f"name one from 1 to {len(rounds)}")
    if not store.has_weights(row.index):
        raise RunError(f"the weights of round {row.index} were let go", "raise keep_rounds before the next run")
    part = store.folder / ".release.part"
    remove_folder(part)
    _write(part, store, run, row, chosen)
    signature = sign_release(coordinator.release_key, (part / MANIFEST).read_bytes())
    write_bytes(part / SIGNATURE, signature.encode())
    place.parent.mkdir(exist_ok=True)
    commit_folder(part, place)
    return place


def _write(folder: Path, store: RunStore, run: str, row: Round, chosen: Chosen) -> None:
    """Model, manifest and card of a round."""
    shares = _shares(store, row)
    manifest = store.manifest(row.index)
    facts = Facts(
        release=RELEASE,
        run=run,
        round=row.index,
        chosen=chosen,
        about=manifest["about"],
        sites=sum(bool(share.cases) for share in shares),
        cases=sum((Counter(share.cases) for share in shares), Counter()),
        pooled=row.pooled,
        digest=manifest["digest"],
    )
    text = card(facts, shares).encode()
    write_bytes(folder / CARD, text)
    sums = {"card_sha256": hashlib.sha256(text).hexdigest()}
    write_model(folder, store.model(row.index), {**facts.to_json(), **sums})


def _closed_rounds(store: RunStore, run: str) -> tuple[Round, ...]:
    remedy = f"let it come to its end: mtsunet-server resume {run}"
    if store.last_round() == 0:
        raise RunError(f"run '{run}' has no committed round", remedy)
    if not store.closed:
        raise RunError(f"run '{run}' is not closed yet", remedy)
    return round_rows(store)


def choose(rounds: Sequence[Round], config: ReleaseConfig) -> tuple[Round, Chosen]:
    """The round that the plan's rule names, among those whose model some site evaluated, and why.

    best: max over rounds of (pooled value of the task, index), so that of equal values the later round is taken, which
    was trained longer. Sites that were absent make the pools of two rounds differ, and the rule does not mend that.

    Raises:
        RunError: no site evaluated any round, or none disclosed a result of the task.
    """
    remedy = "name a round with --round; the card will say so"
    evaluated = [row for row in rounds if row.sites]
    if not evaluated:
        raise RunError("no site evaluated the model of any round", remedy)
    if config.rule == "last":
        return evaluated[-1], Chosen(rule="last")
    told = [
        (pooled.value, row.index, row, pooled)
        for row in evaluated
        for pooled in row.pooled
        if pooled.task == config.task and pooled.value is not None
    ]
    if not told:
        raise RunError(f"no site disclosed a result of '{config.task}' in any round", remedy)
    _, _, row, pooled = max(told, key=lambda entry: entry[:2])
    return row, Chosen(rule="best", by=pooled)


def _shares(store: RunStore, row: Round) -> list[Share]:
    """The sites that trained the model or evaluated it, in an order drawn by chance: no number tells a name."""
    cases: dict[str, dict[str, int]] = {}
    for index in range(1, row.index + 1):
        cases |= {site: reply["cases"] for site, reply in store.record(index)["sites"].items()}
    names = sorted({*cases, *row.sites})
    private = site_privacy(store, row.index)
    return [
        Share(cases.get(name, {}), row.sites.get(name, ()), private.get(name))
        for name in SystemRandom().sample(names, len(names))
    ]
