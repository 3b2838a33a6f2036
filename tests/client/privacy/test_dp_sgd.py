"""A private step against clipping and averaging by hand, and its noise against its law."""

import pytest
import torch
from scipy import stats
from torch import nn

from client.privacy.dp_sgd import PrivateOptimizer, private_step
from client.privacy.randomness import SecureStream

EXPECTED = 4.0
CHANCE = 1e-6


NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_CUDA)])
def network(request: pytest.FixtureRequest) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.GELU(), nn.Flatten(), nn.Linear(4 * 27, 3)]
    return nn.Sequential(*layers).double().to(request.param)


def patient(index: int) -> torch.Tensor:
    """(2, 2, 3, 3, 3): two crops, which for every third patient are without a label."""
    return torch.randn(2, 2, 3, 3, 3, generator=torch.Generator().manual_seed(index), dtype=torch.float64)


def loss_of(network: nn.Module, index: int) -> torch.Tensor:
    if index % 3 == 2:
        return torch.zeros(())
    device = next(network.parameters()).device
    return network(patient(index).to(device)).square().sum(1).mean() * (1 + 10 * (index % 2))


def private(network: nn.Module, noise: float, clip: float) -> PrivateOptimizer:
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    return PrivateOptimizer(optimizer, SecureStream(), noise=noise, clip=clip, expected=EXPECTED)


def gradients(network: nn.Module, index: int) -> list[torch.Tensor]:
    loss = loss_of(network, index)
    parameters = list(network.parameters())
    if not loss.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    return list(torch.autograd.grad(loss, parameters))


def norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).norm())


@pytest.mark.parametrize("patients", [[0, 1, 2, 4, 7], [1], [2], [2, 5], []])
def test_a_step_without_noise_is_the_mean_of_clipped_gradients(network: nn.Sequential, patients: list[int]) -> None:
    rows = [gradients(network, index) for index in patients]
    clip = sorted(norm(row) for row in rows)[len(rows) // 2] * 0.9 if rows else 1.0
    clip = clip or 1.0
    before = [parameter.detach().clone() for parameter in network.parameters()]
    private_step(optimizer := private(network, 0.0, clip), patients, lambda index: loss_of(network, index))
    wanted = [value.clone() for value in before]
    for row in rows:
        factor = min(1.0, clip / (norm(row) + 1e-6))
        for value, gradient in zip(wanted, row, strict=True):
            value -= factor * gradient / EXPECTED
    for parameter, value in zip(network.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-12, atol=1e-14)
    assert optimizer.steps == 1


def test_one_patient_moves_the_model_by_no_more_than_the_clip(network: nn.Sequential) -> None:
    before = [parameter.detach().clone() for parameter in network.parameters()]
    private_step(private(network, 0.0, 0.01), [1], lambda index: loss_of(network, index))
    moved = norm([p.detach() - b for p, b in zip(network.parameters(), before, strict=True)])
    assert moved == pytest.approx(0.01 / EXPECTED, rel=1e-3)


@pytest.mark.parametrize("patients", [[], [0, 1, 2]], ids=["empty draw", "three patients"])
def test_noise_has_the_scale_of_clip_and_multiplier(network: nn.Sequential, patients: list[int]) -> None:
    noise, clip, drawn = 1.7, 0.5, []
    optimizer = private(network, noise, clip)
    quiet = private(network, 0.0, clip)
    for _ in range(60):
        start = [parameter.detach().clone() for parameter in network.parameters()]
        places = []
        for one in (quiet, optimizer):
            with torch.no_grad():
                for parameter, value in zip(network.parameters(), start, strict=True):
                    parameter.copy_(value)
            private_step(one, patients, lambda index: loss_of(network, index))
            places.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
        drawn.append(places[1] - places[0])
    values = torch.cat(drawn).cpu().numpy()
    assert stats.kstest(values, "norm", args=(0, noise * clip / EXPECTED)).pvalue > CHANCE
    assert optimizer.steps == 60


def test_what_depends_on_no_patient_is_added_after_the_noise(network: nn.Sequential) -> None:
    before = [parameter.detach().clone() for parameter in network.parameters()]

    def pull() -> None:
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.grad.add_(1.0)

    private_step(private(network, 0.0, 1.0), [], lambda index: loss_of(network, index), pull)
    for parameter, value in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), value - 1)
