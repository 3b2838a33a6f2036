"""What this site measured itself, all of it, and kept to itself: nothing of this leaves.

results/RUN.json   {"synthetic", "rounds": {round whose model it was: SiteScores}}; the last one is the final model
"""

from pathlib import Path

from pydantic import Field, ValidationError

from shared_model.checkpoint import write_json
from shared_model.errors import DataError
from shared_model.metrics import Record
from shared_model.scores import SiteScores


class _Kept(Record):
    """results/RUN.json"""

    synthetic: bool = False
    rounds: dict[int, SiteScores] = Field(default_factory=dict)


class Results:
    """A site's own evaluations, below its state folder."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "results"

    def _kept(self, run: str) -> _Kept:
        path = self._folder / f"{run}.json"
        try:
            return _Kept.model_validate_json(path.read_bytes()) if path.exists() else _Kept()
        except (OSError, ValidationError):
            raise DataError(f"{path}: cannot be read", "restore it, or remove it") from None

    def keep(self, run: str, index: int, scores: SiteScores, synthetic: bool) -> None:
        """Keep how the model of round `index` did; 0 are the initial weights."""
        rounds = self._kept(run).rounds | {index: scores}
        write_json(self._folder / f"{run}.json", _Kept(synthetic=synthetic, rounds=rounds).to_json())

    def forget(self, run: str) -> None:
        """A patient in them has withdrawn: all of the run's go."""
        (self._folder / f"{run}.json").unlink(missing_ok=True)

    def read(self, run: str) -> tuple[dict[int, SiteScores], bool]:
        """Round -> scores, empty if the site has none, and whether all cases were generated.

        Raises:
            DataError: what was kept is damaged.
        """
        kept = self._kept(run)
        return kept.rounds, kept.synthetic
