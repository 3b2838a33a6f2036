"""Adapters of a network in training; what they are and what becomes of them stands in shared_model/adapters.py."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from shared_model.adapters import adapter_of, projection


class _Adapted(nn.Module):
    """W -> W + B A."""

    def __init__(self, a: torch.Tensor, out: int) -> None:
        super().__init__()
        self.a = a
        self.b = nn.Parameter(a.new_zeros(out, len(a)))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.b @ self.a


class Adapters:
    """The adapters of a network in training; the weights below them are frozen."""

    def __init__(self, network: nn.Module, rank: int, seed: int, index: int) -> None:
        self._layers: dict[str, nn.Module] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        for name, weight in list(network.named_parameters()):
            if adapter := adapter_of(name):
                layer = network.get_submodule(name.removesuffix(".weight"))
                a = torch.from_numpy(projection(seed, index, name, (rank, weight.shape[1]))).to(weight)
                adapted = _Adapted(a, len(weight))
                parametrize.register_parametrization(layer, "weight", adapted)
                weight.requires_grad_(False)
                self._layers[adapter], self.parameters[adapter] = layer, adapted.b

    def merge(self) -> None:
        """Add each product to its weight; the network is a plain one again, with the keys that it had."""
        for layer in self._layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
