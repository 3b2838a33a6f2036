"""The membership attacks' arithmetic on numbers that a reader can check; a model that learnt by heart leaks."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import attack_membership as attacks
from benchmarks.attack_data import CROP, patients
from benchmarks.attack_membership import (
    ClassSide,
    Membership,
    Record,
    confidence,
    halves,
    keep,
    largest_tpr,
    likelihood_ratios,
    losses_of,
    over_patients,
    table,
    tpr_statistic,
    train,
)
from shared_model.config import ModelConfig
from shared_model.losses import multi_task_loss
from shared_model.metrics import Estimate
from shared_model.network import MTSUNet, build_network
from shared_model.tasks import CLASSES, MISSING, TASKS


@pytest.fixture(scope="module")
def network() -> MTSUNet:
    torch.manual_seed(0)
    return build_network(ModelConfig(), tuple(TASKS)).eval()


@pytest.fixture(scope="module")
def records(network: MTSUNet) -> list[Record]:
    return keep(network, patients(8), seed=1)


def test_what_is_kept_gives_the_networks_own_logits(network: MTSUNet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    backbone = network.backbone.forward

    def forward(images: torch.Tensor) -> Any:
        seen.append(images)
        return backbone(images)

    monkeypatch.setattr(network.backbone, "forward", forward)
    record = keep(network, patients(1), seed=2)[0]
    present = torch.ones(len(seen[0]), 4, dtype=torch.bool)
    with torch.no_grad():
        wanted = network(seen[0], present, record.targets.regions[:, :1], forcing=1.0)
        found = ClassSide(network)(record)
    assert seen[0].shape == (attacks.CROPS, 4, *CROP)
    assert (record.targets.classes != MISSING).any(dim=1).all()
    for task in CLASSES:
        torch.testing.assert_close(found[task.name], wanted[task.name])


def test_a_patients_loss_is_the_mean_over_his_crops(network: MTSUNet, records: list[Record]) -> None:
    side = ClassSide(network)
    each = multi_task_loss(side(records[0]), records[0].targets, attacks.WEIGHTS)[0].detach()
    assert each.shape == (attacks.CROPS,)
    assert float(side.loss(records[0]).detach()) == pytest.approx(float(each.sum()) / attacks.CROPS)


def test_a_plain_model_leaks_and_a_private_one_hardly_moves(
    network: MTSUNet, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks, "STEPS", 40)
    monkeypatch.setattr(attacks, "PATIENTS", 8)
    monkeypatch.setattr(attacks, "LEARNING_RATE", 3e-3)
    start = ClassSide(network)
    kept = copy.deepcopy(start.state_dict())
    first, again = (losses_of(train(start, records[:4], 0.0, attacks.UNCLIPPED, 3), records) for _ in range(2))
    assert first.tolist() == again.tolist()
    before = losses_of(start.eval(), records)
    assert first[:4].mean() < 0.5 * before[:4].mean()
    assert first[4:].mean() > 2 * first[:4].mean()
    private = losses_of(train(start, records[:4], 20.0, attacks.CLIP, 3), records)
    assert private[:4].mean() > first[:4].mean() + 1
    assert all(torch.equal(value, kept[name]) for name, value in start.state_dict().items())


def test_each_patient_trains_half_of_the_models() -> None:
    member = halves(10, 30, 4)
    assert member.shape == (10, 30)
    assert (member.sum(axis=0) == 5).all()
    assert len({tuple(column) for column in member.T}) > 20


def test_confidence_is_the_logit_of_the_likelihood() -> None:
    likelihood = np.array([0.2, 0.5, 0.9])
    assert confidence(-np.log(likelihood)) == pytest.approx(np.log(likelihood / (1 - likelihood)))
    assert np.isfinite(confidence(np.array([0.0, 500.0]))).all()


def test_the_ratio_is_that_of_two_normal_densities() -> None:
    member = np.array([[True], [True], [False], [False], [False], [True]])
    scores = np.array([[3.0], [5.0], [0.0], [1.0], [0.5], [4.5]])
    # the last model is scored by the others: with him mean 4, variance 2; without mean 0.5, variance 0.25
    wanted = stats.norm.logpdf(4.5, 4, 2**0.5) - stats.norm.logpdf(4.5, 0.5, 0.5)
    assert likelihood_ratios(scores, member)[-1, 0] == pytest.approx(wanted)


def test_true_positives_are_counted_at_the_threshold() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    member = np.array([True, True, False, True, False, False])
    ones = np.ones((1, 6))
    assert tpr_statistic(scores, member, 0.0)(ones) == pytest.approx([2 / 3])
    assert tpr_statistic(scores, member, 0.34)(ones) == pytest.approx([1.0])
    assert tpr_statistic(np.zeros(6), member, 0.34)(ones) == pytest.approx([0.0])  # nobody can be told apart
    twice = np.array([[1.0, 0.0, 0.0, 3.0, 1.0, 1.0]])
    assert tpr_statistic(scores, member, 0.0)(twice) == pytest.approx([1.0])


def test_models_of_a_patient_are_resampled_together() -> None:
    member = halves(6, 20, 1)
    rng = np.random.default_rng(2)
    noisy = np.repeat(rng.standard_normal((1, 20)), 6, axis=0) + member  # a patient's level, the same in each model
    auc, tpr = over_patients(noisy, member)
    single, _ = over_patients(noisy[:1], member[:1])
    assert auc is not None and tpr is not None and single is not None
    assert auc.low is not None and auc.high is not None and single.low is not None and single.high is not None
    assert 0.6 < auc.value < 0.9
    assert auc.high - auc.low > 0.3 * (single.high - single.low)


def test_epsilon_limits_every_attack() -> None:
    assert largest_tpr(None) == 1
    assert largest_tpr(8.0) == pytest.approx(1 - np.exp(-8) * 0.89999, abs=1e-9)
    assert largest_tpr(1.0) == pytest.approx(np.e * 0.1 + 1e-5)
    assert largest_tpr(1e-9) == pytest.approx(0.10001, abs=1e-6)


def test_the_table_names_training_and_interval() -> None:
    one = (Estimate(value=0.98, low=0.9, high=1.0), Estimate(value=0.91))
    text = table(
        [Membership(None, 0.0, 5.2, (0.1, 5.0), one, one), Membership(1.0, 9.5, 5.2, (4.0, 4.1), one, (None, None))]
    )
    assert "| plain | 0.00 | 0.10; 5.00 | 0.98 (0.90 to 1.00) | 0.91 |" in text
    assert text.splitlines()[-1].endswith("| - | - | 0.27 |")
    assert "synthetic" in text and "Loss before training: 5.20." in text
