"""What a site keeps of its answers, also where the coordinator goes back to an older backup in the middle of a run."""

from pathlib import Path

import numpy as np

from client.state import Answers
from shared_model import wire
from shared_model.scores import SiteScores

RUN = "0123456789abcdef"


def work(index: int, base: str) -> wire.Work:
    return wire.Work(run=RUN, round=index, plan="0" * 64, base=base * 64, settings={})


def answered(answers: Answers, index: int, base: str, step: float) -> None:
    """Keep an answer whose moments are known by `step`."""
    asked = work(index, base)
    moments = {"step/w": np.full((), step, np.float32)}
    answers.keep(asked, update_to(asked), {"w": np.zeros(1, np.float32)}, moments)


def update_to(asked: wire.Work) -> wire.Update:
    return wire.Update(
        run=RUN,
        round=asked.round,
        base=asked.base,
        site="north",
        cases={"wt": 1},
        evaluation=SiteScores(),
        seconds=1.0,
        audit=f"1:{'a' * 64}",
    )


def step(answers: Answers, index: int) -> float:
    """Of the moments that a round starts from."""
    return float(answers.moments(work(index, "f"))["step/w"].item())


def test_moments_are_those_of_the_weights_that_the_run_goes_on_with(tmp_path: Path) -> None:
    """Whatever the digests of the weights are, since answers are found in the order of their names."""
    for first, second in (("1", "2"), ("2", "1")):
        answers = Answers(tmp_path / first)
        answered(answers, 3, "0", 30.0)
        answered(answers, 4, first, 40.0)
        answered(answers, 3, "0", 31.0)  # the coordinator is back before round 3
        assert step(answers, 4) == 31.0
        assert answers.find(work(4, first)) is not None
        answered(answers, 4, second, 41.0)
        assert step(answers, 5) == 41.0
        assert answers.find(work(4, first)) is None and answers.find(work(4, second)) is not None


def test_held_weights_go_with_the_answer_to_them_and_with_it(tmp_path: Path) -> None:
    answers, base = Answers(tmp_path), {"w": np.arange(3, dtype=np.float32)}
    asked = work(1, "0")
    held = answers.hold(RUN, base)
    answers.keep(asked, update_to(asked), {"w": np.zeros(1, np.float32)}, {}, held)
    found = answers.base(RUN, asked.base)
    assert found is not None and found["w"].tobytes() == base["w"].tobytes()
    assert answers.base(RUN, "f" * 64) is None
    answered(answers, 2, "1", 1.0)
    assert answers.base(RUN, asked.base) is None
    assert not list(tmp_path.rglob(".base*"))
