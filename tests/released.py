"""A coordinator whose runs were written by hand: scores as a test wants them, and two tensors for a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from server.coordinator import Coordinator
from server.store import RunStore
from shared_model import wire
from shared_model.checkpoint import write_model
from shared_model.config import Plan
from shared_model.parameters import Tensors, digest
from shared_model.released import Chosen, Facts
from shared_model.scores import SiteScores
from shared_model.signing import create_release_key

RUN = "0123456789abcdef"
HEAD = f"0:{'0' * 64}"
Scores = Mapping[str, SiteScores]
"""Site -> what it disclosed of a round's model."""


def coordinator(folder: Path) -> Coordinator:
    """One that can sign, and no more."""
    made = Coordinator(folder)
    create_release_key(made.release_key)
    return made


def written_run(
    folder: Path,
    plan: Plan,
    evaluations: Sequence[Scores],
    cases: Mapping[str, dict[str, int]],
    closed: bool = True,
    run: str = RUN,
) -> RunStore:
    """A run of as many rounds as there are evaluations.

    Args:
        cases: site -> its training cases, the same in every round.
    """
    store = RunStore(folder)
    tensors = {"missing_token": np.arange(4, dtype=np.float32)}
    store.create(run, plan, tensors, None)
    for index in range(1, len(evaluations) + 1):
        before = evaluations[index - 2] if index > 1 else {}
        replies = {
            site: wire.Update(
                run=run,
                round=index,
                base="0" * 64,
                site=site,
                cases=count,
                evaluation=before.get(site, SiteScores()),
                seconds=1.0,
                audit=HEAD,
            ).model_dump(mode="json", exclude={"audit"})
            for site, count in cases.items()
        }
        record = {
            "sites": replies,
            "refused": [],
            "absent": [],
            "flagged": [],
            "bytes_down": 1,
            "bytes_up": 1,
            "seconds": 1.0,
        }
        model = {"missing_token": tensors["missing_token"] + index}
        store.commit(index, model, digest(model), list(cases), record)
    store.write_terms([], [])
    if closed:
        final = evaluations[-1].items() if evaluations else ()
        store.write_evaluated(
            [wire.Evaluated(run=run, site=site, evaluation=scores, audit=HEAD) for site, scores in final]
        )
    return store


def write_released(folder: Path, plan: Plan, tensors: Tensors, cases: dict[str, int]) -> Path:
    """Model and manifest of round 2 of a run, without card and signature; tasks that `cases` lacks were not trained."""
    about = {
        "plan": plan.digest(),
        "synthetic": plan.synthetic,
        "model": plan.model.model_dump(mode="json"),
        "tasks": list(plan.tasks),
        "grade_edition": plan.grade_edition,
        "crop": list(plan.training.crop),
        "pretrained": None,
        "start": None,
    }
    facts = Facts(
        release="0.1.0",
        run=RUN,
        round=2,
        chosen=Chosen(rule="last"),
        about=about,
        sites=2,
        cases=cases,
        pooled=(),
        digest=digest(tensors),
    )
    write_model(folder, tensors, {**facts.to_json(), "card_sha256": "0" * 64})
    return folder
