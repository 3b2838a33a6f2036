"""The loss against numbers by hand, and its decomposition by sample."""

import math
from collections.abc import Callable

import pytest
import torch

from shared_model.config import ModelConfig
from shared_model.losses import Targets, multi_task_loss, region_loss
from shared_model.network import MTSUNet, build_network
from shared_model.tasks import MISSING, TASKS

WEIGHTS = {"wt": 1.0, "tc": 1.0, "et": 1.0, "idh": 2.26, "codeletion": 3.38, "grade": 1.33}
EVERY = tuple(TASKS)


def _targets(region_known: list[list[bool]], classes: list[list[int]], size: tuple[int, ...] = (1, 1, 2)) -> Targets:
    regions = torch.zeros(len(classes), 3, *size)
    regions[..., : size[-1] // 2] = 1
    return Targets(regions, torch.tensor(region_known), torch.tensor(classes))


def test_region_loss_by_hand() -> None:
    """Two voxels, truth (1, 0). Logits 0: Dice (2 * .5 + 1) / (1 + 1 + 1) = 2/3, cross-entropy ln 2."""
    truth = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    logits = torch.zeros(1, 1, 1, 2)
    assert region_loss(logits, truth).item() == pytest.approx(1 / 3 + math.log(2), abs=1e-6)
    # logits (ln 3, -ln 3): p = (3/4, 1/4); Dice (1.5 + 1) / (1 + 1 + 1) = 5/6, cross-entropy ln(4/3)
    logits = torch.tensor([math.log(3), -math.log(3)]).reshape(1, 1, 1, 2)
    assert region_loss(logits, truth).item() == pytest.approx(1 / 6 + math.log(4 / 3), abs=1e-6)


def test_an_empty_region_asks_for_an_empty_answer() -> None:
    nothing = torch.zeros(1, 4, 4, 4)
    assert region_loss(torch.full((1, 4, 4, 4), -40.0), nothing).item() == pytest.approx(0, abs=1e-6)
    assert region_loss(torch.full((1, 4, 4, 4), 40.0), nothing).item() == pytest.approx(1 - 1 / 65 + 40, abs=1e-3)


def test_what_is_labelled_is_asked_before_the_labels_move() -> None:
    """A meta tensor cannot be read, as a GPU's cannot without waiting."""
    targets = _targets([[True, False, False]], [[MISSING, 1, MISSING]])
    moved = targets.to(torch.device("meta"))
    assert moved.regions.is_meta
    assert moved.labelled == targets.labelled == {"wt", "codeletion"}


def test_class_terms_by_hand() -> None:
    """Logits 0 of three classes: ln 3 times the weight of grade; IDH logits (0, ln 3), label 1: ln(4/3)."""
    targets = _targets([[False] * 3], [[1, MISSING, 2]])
    logits = {"idh": torch.tensor([[0.0, math.log(3)]]), "codeletion": torch.ones(1, 2), "grade": torch.zeros(1, 3)}
    total, parts = multi_task_loss(logits, targets, WEIGHTS)
    assert total.item() == pytest.approx(2.26 * math.log(4 / 3) + 1.33 * math.log(3), abs=1e-6)
    assert parts.keys() == {"idh", "grade"}
    assert parts["grade"].item() == pytest.approx(math.log(3), abs=1e-6)


def test_parts_are_means_over_labelled_samples() -> None:
    targets = _targets([[True, False, False], [False] * 3], [[MISSING] * 3, [MISSING] * 3])
    total, parts = multi_task_loss({"wt": torch.zeros(2, 1, 1, 1, 2)}, targets, WEIGHTS)
    assert total.tolist() == pytest.approx([1 / 3 + math.log(2), 0], abs=1e-6)
    assert parts["wt"].item() == pytest.approx(1 / 3 + math.log(2), abs=1e-6)


def test_half_precision_logits_are_summed_in_float32() -> None:
    targets = _targets([[True] * 3], [[0, 0, 0]], (64, 64, 64))
    logits = torch.full((1, 1, 64, 64, 64), 0.5)
    exact, _ = multi_task_loss({"wt": logits}, targets, WEIGHTS)
    half, _ = multi_task_loss({"wt": logits.bfloat16()}, targets, WEIGHTS)
    assert half.dtype == torch.float32
    assert half.item() == exact.item()


def test_no_label_gives_no_graph() -> None:
    targets = _targets([[False] * 3], [[MISSING] * 3])
    logits = {"wt": torch.zeros(1, 1, 1, 1, 2, requires_grad=True), "idh": torch.zeros(1, 2, requires_grad=True)}
    total, parts = multi_task_loss(logits, targets, WEIGHTS)
    assert total.tolist() == [0.0]
    assert not total.requires_grad
    assert parts == {}


def test_an_unknown_region_adds_exactly_nothing() -> None:
    """One sample's unknown mask leaves neither a loss nor a gradient."""
    logits = torch.randn(2, 1, 2, 2, 2, requires_grad=True)
    targets = _targets([[True, False, False], [False] * 3], [[MISSING] * 3] * 2, (2, 2, 2))
    total, _ = multi_task_loss({"wt": logits}, targets, WEIGHTS)
    total.sum().backward()
    assert total[1] == 0
    assert logits.grad is not None
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """Two samples that differ in labels, regions and modalities; 64 x 32 x 32, float64."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 4, 64, 32, 32, generator=generator, dtype=torch.float64)
    present = torch.tensor([[True] * 4, [True, False, True, True]])
    targets = Targets(
        (torch.rand(2, 3, 64, 32, 32, generator=generator) < 0.2).double(),
        torch.tensor([[True, True, True], [True, False, False]]),
        torch.tensor([[1, MISSING, 2], [0, 1, MISSING]]),
    )
    return images, present, targets


def _rows(targets: Targets, row: slice) -> Targets:
    return Targets(targets.regions[row], targets.region_known[row], targets.classes[row])


def _gradients(network: MTSUNet) -> dict[str, torch.Tensor | None]:
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad()
    return found


@pytest.fixture(scope="module")
def step(batch: tuple[torch.Tensor, torch.Tensor, Targets]) -> Callable[[MTSUNet, slice], torch.Tensor]:
    images, present, targets = batch

    def run(network: MTSUNet, row: slice) -> torch.Tensor:
        part = _rows(targets, row)
        logits = network(images[row], present[row], part.regions[:, :1], part.region_known[:, 0], forcing=0.5)
        losses, _ = multi_task_loss(logits, part, WEIGHTS)
        losses.sum().backward()
        return losses.detach()

    return run


def test_a_batch_is_its_samples(step: Callable[[MTSUNet, slice], torch.Tensor]) -> None:
    """Losses and gradients of two samples together are those of each alone, added."""
    torch.manual_seed(0)
    network = build_network(ModelConfig.model_validate({}), EVERY).double().eval()
    together = step(network, slice(0, 2))
    joint = _gradients(network)
    alone = torch.cat([step(network, slice(0, 1)), step(network, slice(1, 2))])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=0)
    summed = _gradients(network)
    for name, gradient in joint.items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, summed[name], rtol=1e-7, atol=1e-9, msg=name)


def test_a_head_without_labels_has_no_gradient(step: Callable[[MTSUNet, slice], torch.Tensor]) -> None:
    """The first sample lacks 1p/19q, the second grade and two regions."""
    torch.manual_seed(0)
    network = build_network(ModelConfig.model_validate({}), EVERY).double().eval()
    for row, absent in ((slice(0, 1), {"codeletion"}), (slice(1, 2), {"grade", "tc", "et"})):
        step(network, row)
        for name, gradient in _gradients(network).items():
            untouched = name.startswith(tuple(TASKS[task].prefix for task in absent))
            if name != "missing_token":
                assert (gradient is None) == untouched, name
