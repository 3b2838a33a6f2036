"""What a finished run has to tell, read from its store: the sites, the rounds, the bytes."""

from server.store import RunStore
from server.summary import Missing, Privacy, Round, Site, Summary, Totals, evaluated
from shared_model.errors import RunError
from shared_model.guarantee import Steps
from shared_model.scores import SiteScores


def site_rows(store: RunStore, notes: dict[str, tuple[str, ...]]) -> tuple[Site, ...]:
    """The sites that opened the run. Held-out counts are those behind the final evaluation."""
    scores = {row.site: row.evaluation for row in store.evaluated()}
    private = site_privacy(store, store.last_round())
    return tuple(
        Site(
            name=terms.site,
            tasks=terms.tasks,
            training={task: terms.cases[task] for task in terms.tasks},
            held_out={row.task: row.n for row in scores.get(terms.site, SiteScores()).rows()},
            minimum_cell=terms.minimum_cell,
            privacy=private.get(terms.site),
            notes=notes.get(terms.site, ()),
        )
        for terms in store.terms()[0]
    )


def site_privacy(store: RunStore, last: int) -> dict[str, Privacy]:
    """With what each private site trained rounds up to `last`, and what that cost by its own account."""
    guarantees = {terms.site: terms.privacy for terms in store.terms()[0] if terms.privacy is not None}
    if not guarantees:
        return {}
    from shared_model.accounting import epsilon  # it brings torch, by way of Opacus

    spent: dict[str, list[Steps]] = {}
    for index in range(1, last + 1):
        for site, answer in store.record(index)["sites"].items():
            spent[site] = [Steps.from_json(row) for row in answer["spent"]]
    return {
        site: Privacy(
            **own.to_json(),
            steps=sum(row.steps for row in spent.get(site, [])),
            epsilon=epsilon(spent.get(site, []), own.delta),
        )
        for site, own in guarantees.items()
    }


def round_rows(store: RunStore) -> tuple[Round, ...]:
    """The committed rounds, each with what the sites said of its model, which is part of their next answer."""
    last = store.last_round()
    records = {index: store.record(index) for index in range(1, last + 1)}
    rows = []
    for index, record in records.items():
        if index < last:
            answers = records[index + 1]["sites"].items()
            scores = {site: SiteScores.from_json(answer["evaluation"]) for site, answer in answers}
        else:
            scores = {row.site: row.evaluation for row in store.evaluated()}
        lost = [answer["error"] for answer in record["sites"].values() if answer.get("error") is not None]
        rows.append(
            Round(
                index=index,
                present=tuple(sorted(record["sites"])),
                refusals=tuple(Missing(**row) for row in record["refused"]),
                absent=tuple(Missing(**row) for row in record["absent"]),
                flagged=tuple(Missing(**row) for row in record["flagged"]),
                seconds=record["seconds"],
                bytes_down=record["bytes_down"],
                bytes_up=record["bytes_up"],
                error_up=max(lost, default=None),
                error_down=record.get("error_down"),
                **evaluated(scores),
            )
        )
    return tuple(rows)


def summarise(store: RunStore) -> Summary:
    """The summary of a run over the network: what the sites said, and no common test set.

    Raises:
        RunError: no round is committed yet.
    """
    _, plan = store.read()
    if store.last_round() == 0:
        raise RunError(f"run '{plan.name}' has no committed round", "let it finish a round first")
    rounds = round_rows(store)
    down, up = sum(row.bytes_down for row in rounds), sum(row.bytes_up for row in rounds)
    declined = [f"{row['site']}: {row['reason']}" for row in store.terms()[1]]
    caveats = ["Each site evaluated the model on its own held-out cases; there is no common test set."]
    return Summary(
        name=plan.name,
        seed=plan.seed,
        synthetic=plan.synthetic,
        plan=plan.model_dump(mode="json"),
        plan_digest=plan.digest(),
        sites=site_rows(store, {}),
        rounds=rounds,
        test_cases=0,
        ways=(),
        totals=Totals(bytes_down=down, bytes_up=up, seconds=sum(row.seconds for row in rounds)),
        caveats=(*caveats, *(f"A site took no part in the run. {line}" for line in declined)),
    )
