"""An audit of the private step: how much privacy it lost at the least, seen from outside, against what it claims.

Each canary is a patient whose gradient points along one weight of a small head, at the whole length that clipping
leaves. A fair coin decides of each whether he takes part. The steps are the product's own (`private_step`,
`PrivateOptimizer`, `SecureStream`), over the whole batch, where the claim is tightest; the auditor sees what a
coordinator sees, the change of the weights, and guesses the coins. One training run is enough (Steinke, Nasr and
Jagielski 2023, "Privacy auditing with one (1) training run").
"""

from dataclasses import dataclass
from math import exp, inf

import numpy as np
import torch
from scipy.stats import binom
from torch import nn

from client.privacy.dp_sgd import PrivateOptimizer, private_step
from client.privacy.randomness import SecureStream
from shared_model.accounting import epsilon, noise_for
from shared_model.guarantee import Steps

CLAIM, DELTA, CONFIDENCE, SEED = 1.0, 1e-5, 0.999, 1
WIDTH, CLASSES, STEPS, CLIP = 64, 32, 4, 0.5
"""The head, one canary a weight; steps; and a clipping norm that is not 1, so that a lost factor shows."""
LENGTH = 3.0
"""Norm of a canary's gradient before clipping, in clipping norms."""
SHARES = (1.0, 0.5)
"""Parts of the coins that are guessed, the surest first. Few guesses see a small epsilon better, many a large one."""
MECHANISMS = {"as shipped": 1.0, "half of the noise": 0.5, "a quarter of the noise": 0.25, "no noise": 0.0}
"""Part of the due noise that is added."""


@dataclass(frozen=True)
class Audit:
    """What an audit of one mechanism found.

    Attributes:
        epsilon: what the mechanism truly costs, by the accountant; no number without noise.
        right: of all coins, the part guessed rightly.
        bounds: epsilon is at least this, for each of SHARES, each by itself with CONFIDENCE; 0 where nothing is shown.
    """

    mechanism: str
    canaries: int
    noise: float
    epsilon: float | None
    right: float
    bounds: tuple[float, ...]

    @property
    def refuted(self) -> bool:
        """Whether a bound lies above the claim."""
        return max(self.bounds) > CLAIM


def p_value(canaries: int, guesses: int, right: int, claim: float, delta: float) -> float:
    """Chance, at most, of so many right guesses or more, where the mechanism is (claim, delta)-private.

    Steinke et al. 2023, theorem 5.2, with W ~ Binomial(guesses, 1 / (1 + e^-claim)):
    P[W >= right] + 2 canaries delta max_i P[right > W >= right - i] / i, i from 1 to `right`.

    Args:
        canaries: that a fair coin took or left.
        guesses: coins that were guessed, up to all of them; chosen without looking at the coins.
        right: of these.
    """
    chance = 1 / (1 + exp(-claim))
    tail = float(binom.sf(right - 1, guesses, chance))
    distance = np.arange(1, right + 1)
    below = np.cumsum(binom.pmf(right - distance, guesses, chance)) / distance  # (right,)
    return min(1.0, tail + 2 * canaries * delta * float(below.max(initial=0.0)))


def lower_bound(canaries: int, guesses: int, right: int, delta: float, confidence: float) -> float:
    """The largest epsilon, to 1e-4, at which so many right guesses have a chance of at most 1 - confidence.

    A mechanism that is private with a smaller epsilon is with a larger one too, so each epsilon that is rejected is a
    lower bound, also where the chance does not grow with epsilon everywhere.
    """

    def rejected(claim: float) -> bool:
        return p_value(canaries, guesses, right, claim, delta) <= 1 - confidence

    if not rejected(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rejected(high):
        low, high = high, 2 * high
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low


def guess(scores: np.ndarray, count: int) -> np.ndarray:
    """(n,) guesses from scores whose mean is 1 with the canary and 0 without: 1 in, -1 out, 0 for all but the `count`
    that lie farthest from the middle."""
    margins = scores - 0.5
    guesses = np.where(margins > 0, 1, -1)
    guesses[np.argsort(-np.abs(margins), kind="stable")[count:]] = 0
    return guesses


def released(taken: np.ndarray, noise: float, width: int, steps: int) -> np.ndarray:
    """(n,) what the change of the weights tells of each canary, after steps over those that are taken, (n,) bool.

    A weight moves by steps CLIP / expected where its canary takes part, and by nothing but noise where not: 1 and 0.
    """
    head = nn.Linear(width, len(taken) // width, bias=False)
    before = head.weight.detach().clone()
    patients, expected = np.flatnonzero(taken).tolist(), len(taken) / 2
    stream = SecureStream()
    descent = torch.optim.SGD(head.parameters(), lr=1.0)
    optimizer = PrivateOptimizer(descent, stream, noise=noise, clip=CLIP, expected=expected)
    inputs = torch.eye(width)

    def loss(patient: int) -> torch.Tensor:
        """Its gradient is -LENGTH CLIP at one weight and 0 elsewhere."""
        logits: torch.Tensor = head(inputs[patient % width])
        return -LENGTH * CLIP * logits[patient // width]

    for _ in range(steps):
        drawn = stream.sample(len(patients), 1.0)
        private_step(optimizer, [patients[index] for index in drawn], loss)
    if optimizer.steps != steps:
        raise RuntimeError(f"{optimizer.steps} steps were counted where {steps} were done")
    moved = (head.weight.detach() - before).flatten().double().numpy()
    scores: np.ndarray = moved * expected / (steps * CLIP)
    return scores


def audit(mechanism: str, seed: int, width: int = WIDTH, classes: int = CLASSES, steps: int = STEPS) -> Audit:
    """Audit one of MECHANISMS, which claims CLAIM; the seed decides the coins, and nothing of the noise."""
    canaries = width * classes
    noise = MECHANISMS[mechanism] * noise_for(CLAIM, DELTA, 1.0, steps)
    true = epsilon([Steps(rate=1.0, noise=noise, steps=steps)], DELTA)
    taken = np.random.default_rng(seed).random(canaries) < 0.5
    scores = released(taken, noise, width, steps)
    signs = np.where(taken, 1, -1)
    counts = [round(share * canaries) for share in SHARES]
    rights = [int((guess(scores, count) == signs).sum()) for count in counts]
    bounds = tuple(lower_bound(canaries, *pair, DELTA, CONFIDENCE) for pair in zip(counts, rights, strict=True))
    return Audit(mechanism, canaries, noise, None if true == inf else true, rights[0] / counts[0], bounds)


def run() -> list[Audit]:
    return [audit(mechanism, SEED) for mechanism in MECHANISMS]


def table(audits: list[Audit]) -> str:
    lines = [
        f"{audits[0].canaries} canaries, {STEPS} steps over the whole batch, claimed epsilon {CLAIM:g} at delta "
        f"{DELTA:g}. Lower bounds, each with {100 * CONFIDENCE:g} % confidence.",
        "",
        "| mechanism | noise | epsilon by the accountant | coins guessed rightly | at least, all coins guessed "
        "| at least, the surest half guessed | claim |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in audits:
        true = "none holds" if row.epsilon is None else f"{row.epsilon:.2f}"
        bounds = " | ".join(f"{bound:.2f}" for bound in row.bounds)
        verdict = "**refuted**" if row.refuted else "stands"
        lines.append(f"| {row.mechanism} | {row.noise:.2f} | {true} | {row.right:.3f} | {bounds} | {verdict} |")
    return "\n".join(lines)
