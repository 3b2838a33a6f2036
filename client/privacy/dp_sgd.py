"""DP-SGD (Abadi et al. 2016) whose unit is the patient, with Opacus' optimizer.

A step takes each patient by himself with probability `rate` (Poisson sampling; a draw of nobody makes a step too).
One backward pass a patient gives his gradient, whatever layers the network has; Opacus clips it to L2 norm `clip` and
adds it up, then adds noise N(0, (noise clip)^2) once to the sum and divides by the expected number of patients. Several
crops of a patient are one sample. Memory does not grow with the number of patients.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from opacus.optimizers import DPOptimizer
from torch import nn

from client.privacy.randomness import SecureStream

PatientLoss = Callable[[int], torch.Tensor]
"""Loss of the patient with this index, a scalar that depends on no other patient."""


class PrivateOptimizer(DPOptimizer):
    """Opacus' DPOptimizer with the noise of a secure stream, made in the place of the sum.

    Attributes:
        steps: noised steps that were done; what the ledger books.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, stream: SecureStream, *, noise: float, clip: float, expected: float
    ) -> None:
        """
        Args:
            noise: standard deviation of the noise over `clip`.
            clip: bound on the L2 norm of a patient's gradient over all parameters.
            expected: patients that a step takes on average; the divisor.
        """
        super().__init__(optimizer, noise_multiplier=noise, max_grad_norm=clip, expected_batch_size=expected)
        self.stream = stream
        self.steps = 0
        self._sums = [torch.zeros_like(parameter) for parameter in self.params]

    def begin(self) -> None:
        """Start a step. Sums are made once: made among a patient's activations they would break up the memory."""
        self.zero_grad(set_to_none=True)
        for parameter, total in zip(self.params, self._sums, strict=True):
            parameter.summed_grad = total.zero_()

    def add_noise(self) -> None:
        """Add noise to each parameter's sum of clipped gradients, which becomes its gradient."""
        self.steps += 1  # before the first number is drawn: what is begun counts
        for parameter in self.params:
            parameter.grad_sample = []  # lets go of the last patient's gradient before there is noise
            self.stream.add_gaussian(parameter.summed_grad, self.noise_multiplier * self.max_grad_norm)
            parameter.grad = parameter.summed_grad.view_as(parameter)

    def scale_grad(self) -> None:
        for parameter in self.params:
            parameter.grad /= self.expected_batch_size


def private_step(
    optimizer: PrivateOptimizer,
    patients: Sequence[int],
    loss_of: PatientLoss,
    also: Callable[[], None] = lambda: None,
) -> None:
    """One step over these patients, who were drawn by Poisson sampling; none of them is a step as well.

    Args:
        also: called between noise and update; may change gradients by what depends on no patient.
    """
    parameters = cast(list[nn.Parameter], optimizer.params)
    optimizer.begin()
    optimizer.attach_step_hook(lambda _: also())
    if not patients:
        _sample(parameters, empty=True)
        optimizer.step()
    for left, patient in zip(reversed(range(len(patients))), patients, strict=True):
        loss = loss_of(patient)
        if loss.requires_grad:
            loss.backward()
        _sample(parameters)
        optimizer.signal_skip_step(do_skip=left > 0)
        optimizer.step()
        if left:
            optimizer.zero_grad(set_to_none=True)


def _sample(parameters: Iterable[nn.Parameter], empty: bool = False) -> None:
    """Hand each parameter's gradient to Opacus as that of one sample, (1, *shape), or of none, (0, *shape)."""
    for parameter in parameters:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        cast(Any, parameter).grad_sample = gradient.new_zeros((0, *gradient.shape)) if empty else gradient.unsqueeze(0)
        parameter.grad = None
