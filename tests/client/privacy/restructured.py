"""A network whose attention keeps the patients apart, for Opacus' hooks, which take dimension 0 for the samples.

The windows of a patient are one row of tokens for the linear layers, and the bias table is an embedding that each
patient looks up for himself. The arithmetic is MONAI's.
"""

from typing import Any, cast

import torch
from torch import nn

from shared_model.network import MTSUNet
from shared_model.network.attention import WindowAttention


class ApartAttention(nn.Module):
    """WindowAttention over (B * windows, n, C) tokens, where B is `samples`."""

    def __init__(self, stock: WindowAttention, samples: int) -> None:
        super().__init__()
        self.samples, self.heads, self.scale = samples, stock.num_heads, stock.scale
        self.qkv, self.proj = stock.qkv, stock.proj
        self.bias = nn.Embedding.from_pretrained(stock.relative_position_bias_table.detach().clone(), freeze=False)
        self.index = stock.relative_position_index

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        rows, n, channels = tokens.shape
        windows = rows // self.samples
        apart = tokens.reshape(self.samples, windows * n, channels)
        q, k, v = self.qkv(apart).reshape(rows, n, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        index = self.index[:n, :n].reshape(1, -1).expand(self.samples, -1)  # (B, n * n)
        bias = self.bias(index).reshape(self.samples, 1, n, n, self.heads).permute(0, 1, 4, 2, 3)
        scores = (q * self.scale @ k.transpose(-2, -1)).reshape(self.samples, windows, self.heads, n, n) + bias
        if mask is not None:
            scores = scores + mask.reshape(1, len(mask), 1, n, n)
        mixed = scores.softmax(-1).reshape(rows, self.heads, n, n) @ v  # (B * windows, heads, n, C / heads)
        together = mixed.transpose(1, 2).reshape(self.samples, windows * n, channels)
        projected: torch.Tensor = self.proj(together)
        return projected.reshape(rows, n, channels)


def restructure(network: MTSUNet, samples: int) -> dict[str, str]:
    """Change the network in place, for batches of `samples`; new name of each parameter -> old name."""
    names = {name: name for name, _ in network.named_parameters()}
    for name, module in list(network.named_modules()):
        if isinstance(module, WindowAttention):
            parent = cast(Any, network.get_submodule(name.rpartition(".")[0]))
            parent.attn = ApartAttention(module, samples)
            names[f"{name}.bias.weight"] = names.pop(f"{name}.relative_position_bias_table")
    return names
