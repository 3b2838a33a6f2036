"""The Swin stages against MONAI's own, in float64: outputs and gradients, shifted, padded and small windows."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import BasicLayer, PatchMerging, compute_mask
from torch import nn

from shared_model.network import backbone_shape
from shared_model.network.attention import Stage, WindowAttention, shift_mask
from shared_model.network.encoder import Backbone

HEADS, CHANNELS = 2, 8
EXACT = 1e-9
CPU = torch.device("cpu")
ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def stock_stage(window: int) -> Any:
    """Two blocks, the second of which shifts its windows; a bias table large enough to matter."""
    torch.manual_seed(0)
    stage = BasicLayer(CHANNELS, 2, HEADS, (window,) * 3, [0.0, 0.0], qkv_bias=True, downsample=PatchMerging)
    for name, value in stage.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(value)
    return stage.double()


def passed(stage: nn.Module, features: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Output, and the gradients of input and parameters."""
    given = features.clone().requires_grad_()
    output = stage(given)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
    output.backward(weights.reshape(output.shape))
    gradients = {name: value.grad for name, value in stage.named_parameters() if value.grad is not None}
    assert given.grad is not None
    return output.detach(), {**gradients, "input": given.grad}


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative L2."""
    return float((found - wanted).norm() / wanted.norm())


def assert_equal_to_stock(features: torch.Tensor, window: int, bound: float = EXACT) -> None:
    stock = stock_stage(window).to(features)
    ours = Stage(copy.deepcopy(stock))
    output, gradients = passed(ours, features)
    wanted, theirs = passed(stock, features)
    assert distance(output, wanted) <= bound
    assert gradients.keys() == theirs.keys()
    assert {name for name in theirs if distance(gradients[name], theirs[name]) > bound} == set()


SIZES = [
    pytest.param((8, 8, 8), 4, id="shifted"),
    pytest.param((7, 9, 10), 4, id="padded"),
    pytest.param((3, 9, 4), 4, id="one axis shifted"),
    pytest.param((4, 4, 4), 4, id="one window"),
    pytest.param((9, 7, 8), 7, id="of seven"),
]


@pytest.mark.parametrize("way", ["explicit", "fused"])
@pytest.mark.parametrize(("sides", "window"), SIZES)
def test_equal_to_stock(sides: tuple[int, ...], window: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WindowAttention, "explicit", getattr(WindowAttention, way))
    assert_equal_to_stock(torch.randn(2, CHANNELS, *sides, dtype=torch.float64), window)


@ON_CUDA
@pytest.mark.parametrize(("sides", "window"), SIZES)
def test_equal_to_stock_on_cuda(sides: tuple[int, ...], window: int) -> None:
    assert_equal_to_stock(torch.randn(2, CHANNELS, *sides, dtype=torch.float64, device="cuda"), window)


def test_training_on_a_cpu_is_explicit_and_inference_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused, the trained bytes would be others."""
    called: list[str] = []

    def watched(way: str) -> Callable[..., Any]:
        attend = getattr(WindowAttention, way)

        def attended(*given: Any) -> Any:
            called.append(way)
            return attend(*given)

        return attended

    for way in ("explicit", "fused"):
        monkeypatch.setattr(WindowAttention, way, watched(way))
    stage, features = Stage(stock_stage(4)), torch.randn(1, CHANNELS, 8, 8, 8, dtype=torch.float64)
    trained = stage(features)
    assert set(called) == {"explicit"}
    with torch.no_grad():
        assert distance(stage(features), trained.detach()) <= EXACT
    assert called[2:] == ["fused", "fused"]


@pytest.mark.parametrize(
    ("sides", "window", "shift"),
    [((8, 8, 8), (4, 4, 4), (2, 2, 2)), ((14, 7, 21), (7, 7, 7), (3, 0, 3)), ((4, 8, 6), (4, 4, 3), (0, 2, 1))],
)
def test_masks_are_monais(sides: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> None:
    wanted = compute_mask(sides, window, shift, CPU)
    assert torch.equal(shift_mask(sides, window, shift, CPU), wanted)
    assert shift_mask(sides, window, shift, CPU) is shift_mask(sides, window, shift, CPU)


def test_weights_are_drawn_as_stock_draws_them() -> None:
    """Equal names and, from the same seed, equal values: no random number is drawn in between."""
    shape = backbone_shape("tiny")
    torch.manual_seed(0)
    ours = Backbone(shape, legacy_merging=False).state_dict()
    torch.manual_seed(0)
    stock = SwinUNETR(4, 1, feature_size=shape.feature_size, num_heads=shape.heads, window_size=shape.window)
    theirs = {name: value for name, value in stock.state_dict().items() if not name.startswith("out.")}
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
