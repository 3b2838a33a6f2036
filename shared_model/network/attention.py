"""The Swin stages with MONAI's blocks, parameters and arithmetic: shift masks are kept, and attention is fused on CUDA.

Each class takes over the parameters of MONAI's under the names that they had, and draws no random number.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from shared_model.monai_parts import BasicLayer, get_window_size
from shared_model.monai_parts import WindowAttention as StockAttention

BLOCKED = -100.0
"""What MONAI adds to the score of two tokens that a shift alone put into one window."""

Sides = tuple[int, ...]


@lru_cache(maxsize=8)
def shift_mask(sides: Sides, window: Sides, shift: Sides, device: torch.device) -> torch.Tensor:
    """(windows, n, n) float32, added to the scores: 0 between neighbours, BLOCKED where the shift wrapped around.

    Args:
        sides: D, H, W in tokens, padded to multiples of `window`.
        window: its edges in tokens, of product n.
        shift: tokens by which the grid was rolled.
    """
    region = np.zeros(sides, np.int8)
    for axis, (side, edge, moved) in enumerate(zip(sides, window, shift, strict=True)):
        at = np.arange(side)
        own = (at >= side - edge).astype(np.int8) + (at >= side - moved)  # (side,)
        region += (3**axis * own).reshape([-1 if other == axis else 1 for other in range(len(sides))])
    parts = [part for side, edge in zip(sides, window, strict=True) for part in (side // edge, edge)]
    tokens = region.reshape(parts).transpose(0, 2, 4, 1, 3, 5).reshape(-1, int(np.prod(window)))  # (windows, n)
    apart = tokens[:, None, :] != tokens[:, :, None]  # (windows, n, n)
    return torch.from_numpy(apart * np.float32(BLOCKED)).to(device)


class WindowAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias + mask) v in each window, without dropout.

    PyTorch's fused kernel on CUDA, and on a CPU at inference. Training on a CPU keeps the explicit softmax: fused it is
    slower, since the bias needs a gradient, and for some widths equal to rounding alone, where bytes have to stay.
    """

    relative_position_index: torch.Tensor

    def __init__(self, stock: StockAttention) -> None:
        super().__init__()
        self.num_heads, self.scale = stock.num_heads, stock.scale
        self.relative_position_bias_table = stock.relative_position_bias_table
        self.register_buffer("relative_position_index", stock.relative_position_index)
        self.qkv, self.proj = stock.qkv, stock.proj

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """tokens (B * windows, n, C), mask (windows, n, n) or none -> (B * windows, n, C)."""
        rows, n, channels = tokens.shape
        heads = self.num_heads
        q, k, v = self.qkv(tokens).reshape(rows, n, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
        index = self.relative_position_index[:n, :n].reshape(-1)  # (n * n,)
        bias = self.relative_position_bias_table[index].reshape(n, n, heads).permute(2, 0, 1).contiguous()
        attend = self.fused if tokens.is_cuda or not torch.is_grad_enabled() else self.explicit
        mixed = attend(q, k, v, bias, mask)  # (B * windows, heads, n, C / heads)
        projected: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(rows, n, channels))
        return projected

    def explicit(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """q, k, v (B * windows, heads, n, d), bias (heads, n, n) -> as q. Bias and mask are added in place."""
        scores = (q * self.scale) @ k.transpose(-2, -1)  # (B * windows, heads, n, n)
        scores += bias
        if mask is not None:
            scores.view(-1, len(mask), *scores.shape[1:]).add_(mask[:, None])
        return scores.softmax(dim=-1).to(v.dtype) @ v

    def fused(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The same; a sample's windows stand beside its heads, so that bias and mask are there once for all samples."""
        if mask is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None], scale=self.scale)
        shape, n = q.shape, bias.shape[-1]
        added = (bias + mask[:, None]).to(q.dtype).reshape(1, -1, n, n)  # (1, windows * heads, n, n)
        q, k, v = (part.reshape(-1, added.shape[1], n, shape[-1]) for part in (q, k, v))  # (B, windows * heads, n, d)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=self.scale).reshape(shape)


class Stage(nn.Module):
    """MONAI's BasicLayer on volumes: blocks that shift their windows by turns, then a patch merging."""

    def __init__(self, stock: BasicLayer) -> None:
        super().__init__()
        self.window, self.shift = stock.window_size, stock.shift_size
        self.blocks, self.downsample = stock.blocks, stock.downsample
        for block in self.blocks:
            block.attn = WindowAttention(block.attn)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, 2C, D/2, H/2, W/2)."""
        sides = tuple(features.shape[2:])
        window, shift = get_window_size(sides, self.window, self.shift)
        padded = tuple(-(-side // edge) * edge for side, edge in zip(sides, window, strict=True))
        mask = shift_mask(padded, window, shift, features.device) if any(shift) else None
        tokens = features.permute(0, 2, 3, 4, 1)  # (B, D, H, W, C)
        for block in self.blocks:
            tokens = block(tokens, mask)
        merged: torch.Tensor = self.downsample(tokens)
        return merged.permute(0, 4, 1, 2, 3)
