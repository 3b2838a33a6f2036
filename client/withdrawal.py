"""What follows when a patient withdraws: named in `data.exclude`, he leaves training and held-out set at once.

Besides: cache entries, kept answers and own results that hold him are deleted, and a round whose answer is gone is
declined, never answered anew; until the run ends, or `minimum_cell` patients have gone in it, its evaluations stay
suppressed, since the difference of two would tell of him; and the runs that he took part in stay listed, for their
released models hold him. state/withdrawals.json keeps hashes, no names.
"""

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from client.data.identity import key, patient_hash
from client.data.reading import read
from client.data.split import read_split
from client.data.tables import read_list
from client.results import Results
from client.state import Answers
from shared_model.checkpoint import write_json
from shared_model.config import SiteConfig
from shared_model.errors import DataError
from shared_model.metrics import Record


class _Kept(Record):
    """withdrawals.json"""

    patients: dict[str, list[str]] = Field(default_factory=dict)
    changed: dict[str, int] = Field(default_factory=dict)
    declined: dict[str, int] = Field(default_factory=dict)


class Withdrawals:
    """The withdrawals that a site has seen.

    Attributes:
        patients: hash of each withdrawn patient -> runs that he took part in.
        changed: run -> withdrawn patients who took part in it while it was open.
        declined: run -> last round whose answer was deleted.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._path = state / "withdrawals.json"
        try:
            kept = _Kept.model_validate_json(self._path.read_bytes()) if self._path.exists() else _Kept()
        except (OSError, ValidationError):
            raise DataError(f"{self._path}: cannot be read", "restore it; without it nobody may train here") from None
        self.patients, self.changed, self.declined = kept.patients, kept.changed, kept.declined

    def notice(self, config: SiteConfig) -> None:
        """Look at the exclusion list, and do what newly named patients ask for.

        Raises:
            DataError: the list, or what the site keeps of its patients, cannot be read.
        """
        listed = read_list(config.data.exclude) if config.data.exclude else ()
        new = {name: patient_hash(name) for name in listed if patient_hash(name) not in self.patients}
        if not new:
            return
        drawn = self._drawn()
        people = _people(config, new)
        took_part = {name for name in new if drawn & {patient_hash(person) for person in people[name]}}
        runs = sorted(path.stem for path in (self._state / "runs").glob("*.json"))
        if took_part:
            from client.data.cache import CaseCache  # it brings torch, and few sites ever need it here

            CaseCache(self._state / "cache").forget({person for name in took_part for person in people[name]})
            for run in runs:
                self._decline(run)
                self.changed[run] = self.changed.get(run, 0) + len(took_part)
        self.patients |= {code: runs if name in took_part else [] for name, code in new.items()}
        self._write()

    def _drawn(self) -> set[str]:
        """Hashes of all patients that any split of this site ever held."""
        found: set[str] = set()
        for path in (self._state / "splits").glob("*.json"):
            found |= set(read_split(path))
        return found

    def _decline(self, run: str) -> None:
        """Delete the run's kept answers and moments, and the site's own results in it."""
        Results(self._state).forget(run)
        answers = Answers(self._state)
        self.declined[run] = max([self.declined.get(run, 0), *answers.rounds(run)])
        answers.forget(run)

    def suppresses(self, run: str, minimum_cell: int) -> bool:
        """Whether evaluations of this run stay at the site."""
        return 0 < self.changed.get(run, 0) < minimum_cell

    def end(self, run: str) -> None:
        """The run has ended."""
        if run in self.changed or run in self.declined:
            self.changed.pop(run, None)
            self.declined.pop(run, None)
            self._write()

    def _write(self) -> None:
        write_json(self._path, {"patients": self.patients, "changed": self.changed, "declined": self.declined})


def _people(config: SiteConfig, names: Iterable[str]) -> dict[str, set[str]]:
    """Listed name -> the names of the patients whom it means: a list may name a case, or a patient by another name."""
    cases = read(config.data.model_copy(update={"exclude": None}), "who2021").cases
    return {
        name: {name} | {case.patient for case in cases if key(name) in {key(case.patient), key(case.id), *case.also}}
        for name in names
    }
