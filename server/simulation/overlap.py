"""No patient twice: between sites, and between sites and the test set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.data.cases import Case
from client.data.datasets import datasets
from client.data.identity import Mapping, key, same_people
from shared_model.config import DataConfig
from shared_model.errors import ConfigError


@dataclass(frozen=True)
class Overlap:
    """A case that was taken out of a site.

    Attributes:
        place: the site.
        case: its name.
        why: whose patient he is, or may be.
    """

    place: str
    case: str
    why: str


Places = Sequence[tuple[str, DataConfig, list[Case]]]
"""Name, data and cases of each test set and site, in the order in which they may keep a patient."""


def require_mapping(layouts: set[str]) -> None:
    """Refuse a plan without a mapping table where patients could not be recognised.

    Raises:
        ConfigError: a BraTS release beside a data set whose patients are in it.
    """
    known = datasets()
    releases = sorted(name for name in layouts & set(known) if known[name].also and not known[name].in_brats)
    sources = sorted(name for name in layouts & set(known) if known[name].in_brats)
    if len(releases) > 1 or (releases and sources):
        pair = [*releases, *sources][:2]
        raise ConfigError(
            f"plan: patients of {pair[1]} are in {pair[0]}, and nothing tells which",
            "name BraTS21-17_Mapping.csv in 'mapping'",
        )


def without_overlaps(places: Places, mapping: Path | None) -> tuple[dict[str, list[Case]], list[Overlap]]:
    """Cases of each place, each person in the first place that has him, and what was taken out.

    A case of a BraTS institution whose patients another data set of the plan may hold, while no table tells which, is
    taken out too.
    """
    layouts = {data.layout for _, data, _ in places}
    table = None if mapping is None else Mapping(mapping)
    if table is None:
        require_mapping(layouts)
    rumoured = {
        institution: layout
        for layout in sorted(layouts & set(datasets()))
        for institution in datasets()[layout].same_as_brats_sites
    }
    person = same_people(_names(case) for _, _, cases in places for case in cases)
    owner: dict[str, str] = {}
    kept: dict[str, list[Case]] = {}
    taken: list[Overlap] = []
    for place, data, cases in places:
        kept.setdefault(place, [])
        for case in cases:
            names = _names(case)
            other = owner.setdefault(person[min(names)], place)
            sites = {table.site[name] for name in names & table.anonymous} if table else set()
            if other != place:
                taken.append(Overlap(place, case.id, f"the patient is in {other}"))
            elif (maybe := sorted(rumoured[site] for site in sites & set(rumoured))) and data.layout not in maybe:
                taken.append(Overlap(place, case.id, f"may be a patient of {maybe[0]}; no table tells"))
            else:
                kept[place].append(case)
    return kept, taken


def _names(case: Case) -> frozenset[str]:
    return case.also | {key(case.patient)}
