"""The card of a released model: what it is, what it was trained on, what it does, and what it is not, in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.summary import Privacy
from shared_model.released import Chosen, Facts
from shared_model.scores import METRICS, Row
from shared_model.tasks import TASKS

NO_PRIVACY = "none: updates were not differentially private"
NOT_DISCLOSED = "not disclosed"


@dataclass(frozen=True)
class Share:
    """One site's part in a model, without its name.

    Attributes:
        cases: group of parameters -> training cases, as the site rounded them down; empty if it trained none of it.
        rows: what it disclosed of the model's results.
        privacy: of its training; None if it had none.
    """

    cases: dict[str, int]
    rows: tuple[Row, ...]
    privacy: Privacy | None = None


def card(facts: Facts, shares: Sequence[Share]) -> str:
    """Markdown text; the order of `shares` numbers the sites."""
    tasks: list[str] = facts.about["tasks"]
    kind = "synthetic " if facts.about["synthetic"] else ""
    names = [f"site {number}" for number in range(1, len(shares) + 1)]
    trained = [
        [name, *(str(share.cases.get(task, "not trained")) for task in tasks), _privacy(share)]
        for name, share in zip(names, shares, strict=True)
        if share.cases
    ]
    results = [["all sites", *_results(facts.pooled, tasks)]]
    results += [[name, *_results(share.rows, tasks)] for name, share in zip(names, shares, strict=True)]
    sections = [
        f"# MTS-UNET, {kind}run {facts.run}, round {facts.round}",
        _origin(facts),
        "It reads four MRI sequences of a glioma (T1, T1 with contrast, T2, FLAIR) and gives: "
        f"{', '.join(TASKS[task].title for task in tasks)}. Grades are of the edition {facts.about['grade_edition']}.",
        f"Research software: not for clinical use, and no clinical claim is made. {_choice(facts.chosen)}",
        "## Training",
        f"The {kind}cases with a label, rounded down by each of {facts.sites} sites before it told them. Sites have "
        f"numbers drawn by chance, and no names. The plan's sha256 is {facts.about['plan']}.",
        _table(["", *(TASKS[task].title for task in tasks), "privacy"], trained),
        "## Results",
        f"Each site measured the model on its own {kind}held-out cases. In brackets 95 % intervals; "
        f'"{NOT_DISCLOSED}" is no result, and never zero.',
        _table(["", *(_measure(facts.pooled, task) for task in tasks)], results),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(facts, shares)),
    ]
    return "\n\n".join(sections) + "\n"


def _origin(facts: Facts) -> str:
    if facts.about["synthetic"]:
        return "**Synthetic: every case was generated, and no number here says anything about patients.**"
    return "Trained by hospitals together, on images and labels that stayed with them."


def _choice(chosen: Chosen) -> str:
    if chosen.rule == "by hand":
        return "The coordinator chose this round by hand, and not by the plan's rule."
    if chosen.by is None:
        return "The plan said beforehand that the last round is released."
    return (
        "The plan said beforehand that the round is released whose pooled result is the highest: "
        f"{_measure((chosen.by,), chosen.by.task)}, here {_result(chosen.by)}."
    )


def _privacy(share: Share) -> str:
    if share.privacy is None:
        return NO_PRIVACY
    return f"epsilon {share.privacy.epsilon:.3g} at delta {share.privacy.delta:g}, by the site's own account"


def _limits(facts: Facts, shares: Sequence[Share]) -> list[str]:
    lines = [
        "Images have to be prepared as those it was trained on: one grid, brains extracted (`mtsunet-client prepare`).",
        "There is no common test set: other hospitals, scanners and patients may give other results.",
        "Intervals are by theory from sums alone, and rough below about 10 cases.",
    ]
    plain = [share for share in shares if share.cases and share.privacy is None]
    if plain:
        lines.append(
            f"The updates of {len(plain)} of {facts.sites} sites were not differentially private: the weights may tell "
            "something of the cases they were trained on."
        )
    if len(plain) < facts.sites:
        lines.append(
            "Epsilon holds for each training patient of its site, in this run alone, and not for the results above."
        )
    if facts.chosen.by is not None:
        lines.append(
            "The round was chosen by one of these results, which flatters it; other sites may have evaluated others."
        )
    if start := facts.about.get("start"):
        lines.append(
            f"It began as the released model of run {start['run']}, round {start['round']} (digest {start['digest']}): "
            "what that model's card says of its cases, their privacy and its licence holds for this one too. "
            "Where the seeds of the two plans differ, that run may have trained on cases that are held out here, which "
            "flatters the results."
        )
    if pretrained := facts.about["pretrained"]:
        lines.append(
            f"It began as BrainSegFounder weights (sha256 {pretrained['sha256']}). Their licence is not this "
            "software's and may bind this model too: read it before the model is used or passed on."
        )
    return lines


def _find(rows: Sequence[Row], task: str) -> Row | None:
    return next((row for row in rows if row.task == task), None)


def _measure(pooled: Sequence[Row], task: str) -> str:
    row = _find(pooled, task)
    return TASKS[task].title if row is None else f"{TASKS[task].title}: {METRICS[row.metric]}"


def _results(rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    return [_result(_find(rows, task)) for task in tasks]


def _result(row: Row | None) -> str:
    if row is None or row.value is None:
        return NOT_DISCLOSED
    interval = "" if row.low is None or row.high is None else f" ({row.low:.3f} to {row.high:.3f})"
    return f"{row.value:.3f}{interval}, n = {row.n}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
