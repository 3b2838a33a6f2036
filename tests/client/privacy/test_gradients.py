"""The gradient of each patient that a private step clips, against Opacus' hooks and against vmap, in float64.

The whole network, three patients: one without FLAIR and without a class label, one without any label, one whose mask
tells the whole tumour alone.
"""

import copy
from typing import Any, cast

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from client.privacy.dp_sgd import PrivateOptimizer, private_step
from client.privacy.randomness import SecureStream
from shared_model.config import ModelConfig
from shared_model.losses import Targets, multi_task_loss, region_loss
from shared_model.network import MTSUNet, build_network
from shared_model.tasks import CLASSES, MISSING, REGIONS, TASKS
from tests.client.privacy.restructured import restructure

pytestmark = pytest.mark.long

PATIENTS = 3
WEIGHTS = {name: 1.0 + index for index, name in enumerate(TASKS)}
Gradients = list[dict[str, torch.Tensor]]
"""Of each patient, by parameter."""


@pytest.fixture(scope="module")
def network() -> MTSUNet:
    torch.manual_seed(1)
    made = build_network(ModelConfig(), tuple(TASKS)).double().eval()
    for parameter in made.parameters():  # zeros hide mistakes
        parameter.data += 0.02 * torch.randn_like(parameter)
    return made


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor, Targets]:
    torch.manual_seed(2)
    images = torch.randn(PATIENTS, 4, 64, 32, 32, dtype=torch.float64)
    present = torch.ones(PATIENTS, 4, dtype=torch.bool)
    present[0, 3] = False
    regions = (torch.rand(PATIENTS, len(REGIONS), 64, 32, 32) < 0.1).double()
    known = torch.tensor([[True] * 3, [False] * 3, [True, False, False]])
    classes = torch.tensor([[MISSING] * 3, [MISSING] * 3, [1, 0, 2]])
    return images, present, Targets(regions, known, classes)


def one(batch: tuple[torch.Tensor, torch.Tensor, Targets], index: int) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    images, present, targets = batch
    row = slice(index, index + 1)
    return images[row], present[row], Targets(targets.regions[row], targets.region_known[row], targets.classes[row])


def forward(network: Any, images: torch.Tensor, present: torch.Tensor, targets: Targets) -> dict[str, torch.Tensor]:
    logits: dict[str, torch.Tensor] = network(images, present, targets.regions[:, :1], targets.region_known[:, 0], 0.5)
    return logits


@pytest.fixture(scope="module")
def ours(network: MTSUNet, batch: tuple[torch.Tensor, torch.Tensor, Targets]) -> Gradients:
    found = []
    for index in range(PATIENTS):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        private = PrivateOptimizer(optimizer, SecureStream(), noise=0.0, clip=1e12, expected=1.0)

        def loss(patient: int) -> torch.Tensor:
            images, present, targets = one(batch, patient)
            return multi_task_loss(forward(network, images, present, targets), targets, WEIGHTS)[0].sum()

        private_step(private, [index], loss)
        found.append({name: cast(torch.Tensor, p.grad).clone() for name, p in network.named_parameters()})
    return found


def check(found: Gradients, ours: Gradients) -> None:
    for row, wanted in zip(ours, found, strict=True):
        mine, theirs = (torch.cat([part[name].flatten() for name in sorted(wanted)]) for part in (row, wanted))
        assert float((mine - theirs).norm()) <= 1e-9 * max(float(theirs.norm()), 1e-300)


def test_patients_without_a_label_have_no_gradient(ours: Gradients) -> None:
    norms = [float(torch.cat([value.flatten() for value in row.values()]).norm()) for row in ours]
    assert norms[1] == 0 and norms[0] > 0 and norms[2] > 0
    assert float(ours[0]["heads.idh.layers.0.weight"].norm()) == 0 < float(ours[2]["heads.idh.layers.0.weight"].norm())
    assert float(ours[0]["missing_token"].norm()) > 0


def test_they_are_those_of_opacus_hooks(
    network: MTSUNet, batch: tuple[torch.Tensor, torch.Tensor, Targets], ours: Gradients
) -> None:
    """But for the two bare parameters of modules that hold others, which Opacus cannot sample."""
    apart = copy.deepcopy(network)
    names = restructure(apart, PATIENTS)
    bare = ("missing_token", "cross_modality.absent")
    for name, parameter in apart.named_parameters():
        parameter.requires_grad_(name not in bare)
    apart.train()  # or the hooks see nothing
    for module in apart.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    sampled = GradSampleModule(apart, loss_reduction="sum")
    images, present, targets = batch
    multi_task_loss(forward(sampled, images, present, targets), targets, WEIGHTS)[0].sum().backward()
    parameters = {name: cast(Any, p).grad_sample for name, p in apart.named_parameters() if name not in bare}
    check([{names[name]: value[index] for name, value in parameters.items()} for index in range(PATIENTS)], ours)


def test_they_are_those_of_vmap(
    network: MTSUNet,
    batch: tuple[torch.Tensor, torch.Tensor, Targets],
    ours: Gradients,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill(self: MTSUNet, images: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        return torch.where(present[:, :, None, None, None], images, self.missing_token[:, None, None, None])

    monkeypatch.setattr(MTSUNet, "_fill", fill)  # without a branch on the data, which vmap cannot take

    def loss(parameters: dict[str, torch.Tensor], *values: torch.Tensor) -> torch.Tensor:
        images, present, regions, known, classes = (value[None] for value in values)
        logits = functional_call(network, parameters, (images, present, regions[:, :1], known[:, 0], 0.5))
        total = images.new_zeros(())
        for column, task in enumerate(REGIONS):
            term = region_loss(logits[task.name][:, 0], regions[:, column])[0]
            total = total + WEIGHTS[task.name] * known[0, column] * term
        for column, task in enumerate(CLASSES):
            label = classes[:, column]
            term = F.cross_entropy(logits[task.name], label.clamp(min=0))
            total = total + WEIGHTS[task.name] * (label[0] != MISSING) * term
        return total

    images, present, targets = batch
    values = (images, present, targets.regions, targets.region_known, targets.classes)
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    found = vmap(grad(loss), in_dims=(None, *[0] * len(values)))(parameters, *values)
    check([{name: value[index] for name, value in found.items()} for index in range(PATIENTS)], ours)


def test_a_loss_that_couples_patients_would_show(
    network: MTSUNet, batch: tuple[torch.Tensor, torch.Tensor, Targets], ours: Gradients
) -> None:
    """The sum of the patients' gradients is that of our loss over them together, and not that of a batch Dice."""
    images, present, targets = batch
    parameters = dict(network.named_parameters())

    def together(coupled: bool) -> dict[str, torch.Tensor]:
        logits = forward(network, images, present, targets)
        loss = multi_task_loss(logits, targets, WEIGHTS)[0].sum()
        if coupled:
            probability = torch.sigmoid(logits["wt"][[0, 2], 0])
            loss = loss - 2 * (probability * targets.regions[[0, 2], 0]).sum() / (probability + 1).sum()
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(parameters, found, strict=True))

    total = {name: sum((row[name] for row in ours), torch.zeros_like(ours[0][name])) for name in parameters}
    check([together(coupled=False)], [total])
    with pytest.raises(AssertionError):
        check([together(coupled=True)], [total])
