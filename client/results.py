"""What this site measured itself, all of it, and kept to itself: nothing of this leaves.

results/RUN.json   {"synthetic", "rounds": {round whose model it was: SiteScores}}; the last one is the final model
"""

import json
from pathlib import Path
from typing import Any

from shared_model.checkpoint import write_json
from shared_model.scores import SiteScores


class Results:
    """A site's own evaluations, below its state folder."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "results"

    def _values(self, run: str) -> dict[str, Any]:
        path = self._folder / f"{run}.json"
        values: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {"synthetic": False, "rounds": {}}
        return values

    def keep(self, run: str, index: int, scores: SiteScores, synthetic: bool) -> None:
        """Keep how the model of round `index` did; 0 are the initial weights."""
        rounds = self._values(run)["rounds"] | {str(index): scores.to_json()}
        write_json(self._folder / f"{run}.json", {"synthetic": synthetic, "rounds": rounds})

    def forget(self, run: str) -> None:
        """A patient in them has withdrawn: all of the run's go."""
        (self._folder / f"{run}.json").unlink(missing_ok=True)

    def read(self, run: str) -> tuple[dict[int, SiteScores], bool]:
        """Round -> scores, empty if the site has none, and whether all cases were generated."""
        values = self._values(run)
        rounds = {int(index): SiteScores.from_json(scores) for index, scores in values["rounds"].items()}
        return rounds, values["synthetic"]
