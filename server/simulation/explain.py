"""What a plan's folders hold, for the terminal: sites, cases, labels, and who is left out and why."""

from collections import Counter

from rich.table import Table

from client.data.cases import LABELS, GradeEdition, LeftOut, counts
from server.simulation.gathering import TEST, Gathered, Place

SHOWN = 5


def table(gathered: Gathered, edition: GradeEdition) -> Table:
    """One row a site: cases, and how many have each label. The grade is that of the plan's edition."""
    other = "grade_histologic" if edition == "who2021" else "grade_who2021"
    labels = [label for label in LABELS if label != other]
    rows = Table(title="cases with each label", title_justify="left")
    rows.add_column("site")
    for name in ("patients", "cases", "WT", "TC", "ET"):
        rows.add_column(name, justify="right")
    for label in labels:
        rows.add_column(f"{label.replace('_', ' ')}\n{' / '.join(LABELS[label])}", justify="right")
    for place in (*gathered.sites, _all_test(gathered)):
        found = counts(place.cases)
        rows.add_row(
            place.name,
            str(len({case.patient for case in place.cases})),
            str(len(place.cases)),
            *(str(found[region]["cases"]) for region in ("wt", "tc", "et")),
            *(" / ".join(str(number) for number in found[label].values()) for label in labels),
        )
    return rows


def _all_test(gathered: Gathered) -> Place:
    return Place(TEST, gathered.test[0].data, [case for place in gathered.test for case in place.cases])


def lines(gathered: Gathered) -> list[str]:
    """What is left out, by reason, with the first few names."""
    said = [f"{name}: skipped, {why}" for name, why in gathered.skipped.items()]
    for name, left in gathered.left_out.items():
        said += [f"{name}: left out: {line}" for line in _by_reason(left)]
    removed: dict[str, list[LeftOut]] = {}
    for overlap in gathered.overlaps:
        removed.setdefault(overlap.place, []).append(LeftOut(overlap.case, overlap.why))
    for name, left in removed.items():
        said += [f"{name}: overlap removed: {line}" for line in _by_reason(left)]
    for name, findings in gathered.findings.items():
        kinds = Counter((finding.severity, finding.what) for finding in findings)
        said += [f"{name}: {severity}: {what} ({count})" for (severity, what), count in sorted(kinds.items())]
    if not gathered.overlaps:
        said.append("no patient is in two places")
    return said


def _by_reason(left: list[LeftOut]) -> list[str]:
    """One line a reason: how many, why, and who."""
    reasons: dict[str, list[str]] = {}
    for one in left:
        reasons.setdefault(one.why, []).append(one.what)
    return [
        f"{len(names)}: {why} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for why, names in reasons.items()
    ]
