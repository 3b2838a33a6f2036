"""The network: shapes and names of each variant, equality with stock SwinUNETR, gate, missing images, old merging."""

from collections.abc import Iterator

import pytest
import torch
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import PatchMerging

from shared_model.config import ModelConfig
from shared_model.network import MTSUNet, backbone_shape, build_network
from shared_model.network.cross_modality import FLAIR, T2, CrossModalityDifferential
from shared_model.network.encoder import Backbone, LegacyPatchMerging
from shared_model.network.tumor_aware import tumor_pool
from shared_model.tasks import CLASSES, REGIONS, TASKS

EVERY = tuple(TASKS)
SIZE = (64, 32, 32)
VARIANTS = [
    ("ours", "ours"),
    ("ours", "none"),
    ("none", "ours"),
    ("as-coded", "as-coded"),
    ("as-coded", "none"),
    ("none", "as-coded"),
]


def _config(**fields: str) -> ModelConfig:
    return ModelConfig.model_validate(fields)


def _present(batch: int = 1) -> torch.Tensor:
    return torch.ones(batch, 4, dtype=torch.bool)


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tiny() -> MTSUNet:
    torch.manual_seed(0)
    return build_network(_config(), EVERY).eval()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("tumor_aware", "cross_modality"), VARIANTS)
def test_shapes_and_names_of_every_variant(tumor_aware: str, cross_modality: str, images: torch.Tensor) -> None:
    network = build_network(_config(tumor_aware=tumor_aware, cross_modality=cross_modality), EVERY)
    logits = network(images, _present(2))
    assert list(logits) == list(EVERY)
    for task in REGIONS:
        assert logits[task.name].shape == (2, 1, *SIZE)
    for task in CLASSES:
        assert logits[task.name].shape == (2, len(task.classes))
    groups = ("backbone.", "tumor_aware.", "cross_modality.", *(task.prefix for task in TASKS.values()))
    names = [name for name, _ in network.named_parameters()]
    assert all(name.startswith(groups) or name == "missing_token" for name in names)
    assert (tumor_aware == "ours") == any(name.startswith("tumor_aware.") for name in names)
    assert (cross_modality != "none") == any(name.startswith("cross_modality.") for name in names)
    assert all(name.endswith("relative_position_index") for name, _ in network.named_buffers())
    sum(output.sum() for output in logits.values()).backward()
    unused = [name for name, value in network.named_parameters() if value.grad is None]
    assert unused == ["missing_token"]


def test_layer_widths_as_coded() -> None:
    """Streams 16 F-256-64-C and 128-256-64-C, fusion 2C-32-C, two 1 -> 64 convolutions of kernel 7 without bias."""
    network = build_network(_config(tumor_aware="as-coded", cross_modality="as-coded"), ("wt", "grade"))
    shapes = [tuple(value.shape) for name, value in network.heads["grade"].named_parameters() if "weight" in name]
    assert shapes == [(256, 192), (64, 256), (3, 64), (256, 128), (64, 256), (3, 64), (32, 6), (3, 32)]
    assert network.cross_modality is not None
    shapes = [tuple(value.shape) for value in network.cross_modality.parameters()]
    assert shapes == [(64, 1, 7, 7, 7), (64, 1, 7, 7, 7), (1, 2, 3, 3, 3), (1,)]


@pytest.mark.parametrize(
    "tasks", [("wt",), ("idh",), ("tc", "grade"), ("wt", "tc", "et"), ("idh", "codeletion", "grade")]
)
def test_any_subset_of_tasks(tasks: tuple[str, ...], images: torch.Tensor) -> None:
    network = build_network(_config(), tasks)
    with torch.no_grad():
        assert tuple(network(images[:1], _present())) == tasks
    has_classes = any(not TASKS[name].is_region for name in tasks)
    assert (network.tumor_aware is not None) == (network.cross_modality is not None) == has_classes


def test_asked_tasks_and_segment(tiny: MTSUNet, images: torch.Tensor) -> None:
    """A part of the tasks has the values of the whole; class logits do not need a region to be asked."""
    with torch.no_grad():
        every = tiny(images[:1], _present())
        assert torch.equal(tiny(images[:1], _present(), tasks=["idh"])["idh"], every["idh"])
        regions = tiny.segment(images[:1], _present())
    assert list(regions) == ["wt", "tc", "et"]
    assert all(torch.equal(regions[name], every[name]) for name in regions)


@pytest.mark.parametrize(("preset", "backbone"), [("tiny", 3_912_513), ("base", 62_191_941), ("small", 64_076_853)])
def test_parameter_counts(preset: str, backbone: int) -> None:
    """Backbone with three region heads, the count of MONAI's SwinUNETR of that size."""
    network = build_network(_config(preset=preset), ("wt", "tc", "et"))
    assert _count(network.backbone) + _count(network.heads) == backbone
    assert _count(network) == backbone + 4


def test_bfloat16_autocast(tiny: MTSUNet, images: torch.Tensor) -> None:
    """Class logits come in float32 and near those of full precision."""
    with torch.no_grad():
        full = tiny(images[:1], _present())
        with torch.autocast("cpu", torch.bfloat16):
            half = tiny(images[:1], _present())
    assert half["wt"].dtype == torch.bfloat16
    for task in CLASSES:
        assert half[task.name].dtype == torch.float32
        torch.testing.assert_close(half[task.name], full[task.name], rtol=0, atol=0.05)


def test_segmentation_equals_stock_swinunetr() -> None:
    """Same weights in MONAI's SwinUNETR: hidden states and region logits to float64 rounding, with and without grad."""
    torch.manual_seed(0)
    network = build_network(_config(), EVERY).double()
    shape = backbone_shape("tiny")
    stock = SwinUNETR(
        4, 3, feature_size=shape.feature_size, depths=shape.depths, num_heads=shape.heads, window_size=shape.window
    ).double()
    weights = dict(network.backbone.state_dict())
    for kind in ("weight", "bias"):
        heads: list[torch.Tensor] = [network.get_parameter(f"heads.{task.name}.{kind}") for task in REGIONS]
        weights[f"out.conv.conv.{kind}"] = torch.cat(heads)
    stock.load_state_dict(weights, strict=True)
    images = torch.randn(1, 4, *SIZE, dtype=torch.float64)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            ours = torch.cat([logit for name, logit in network(images, _present()).items() if TASKS[name].is_region], 1)
            torch.testing.assert_close(ours, stock(images), rtol=1e-9, atol=1e-9)
            hidden, _ = network.backbone(images)
            for own, theirs in zip(hidden, stock.swinViT(images, True), strict=True):
                torch.testing.assert_close(own, theirs, rtol=1e-9, atol=1e-9)


def _slow_legacy_merge(tokens: torch.Tensor, merge: PatchMerging) -> torch.Tensor:
    """The old slicing written voxel by voxel, (B, D, H, W, C) -> (B, D/2, H/2, W/2, 2C)."""
    batch, depth, height, width, _ = tokens.shape
    out = tokens.new_zeros(batch, depth // 2, height // 2, width // 2, merge.reduction.out_features)
    for b in range(batch):
        for d in range(depth // 2):
            for h in range(height // 2):
                for w in range(width // 2):
                    x0 = tokens[b, 2 * d, 2 * h, 2 * w]
                    x1 = tokens[b, 2 * d + 1, 2 * h, 2 * w]
                    x2 = tokens[b, 2 * d, 2 * h + 1, 2 * w]
                    x3 = tokens[b, 2 * d, 2 * h, 2 * w + 1]
                    x4 = tokens[b, 2 * d + 1, 2 * h, 2 * w + 1]
                    x5 = tokens[b, 2 * d, 2 * h + 1, 2 * w]
                    x6 = tokens[b, 2 * d, 2 * h, 2 * w + 1]
                    x7 = tokens[b, 2 * d + 1, 2 * h + 1, 2 * w + 1]
                    out[b, d, h, w] = merge.reduction(merge.norm(torch.cat([x0, x1, x2, x3, x4, x5, x6, x7])))
    return out


def test_legacy_merging_equals_the_slow_reference() -> None:
    torch.manual_seed(0)
    merge = LegacyPatchMerging(dim=6).double()
    tokens = torch.randn(2, 4, 6, 2, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(merge(tokens), _slow_legacy_merge(tokens, merge), rtol=1e-12, atol=1e-12)


def test_legacy_merging_is_another_model(images: torch.Tensor) -> None:
    """Equal keys, shapes and weights; hidden states after the first merge that have little in common."""
    torch.manual_seed(0)
    current = Backbone(backbone_shape("tiny"), legacy_merging=False).eval()
    legacy = Backbone(backbone_shape("tiny"), legacy_merging=True).eval()
    legacy.load_state_dict(current.state_dict(), strict=True)
    with torch.no_grad():
        new, _ = current(images[:1])
        old, _ = legacy(images[:1])
    assert torch.equal(new[0], old[0])
    for level in range(1, 5):
        assert (new[level] - old[level]).norm() / new[level].norm() > 0.3, level


def test_tumor_pool_by_hand() -> None:
    """Voxels 2 and 6; gate 1 over the first, 0 over the second, so weights 1 and the floor 0.01."""
    features = torch.tensor([2.0, 6.0]).reshape(1, 1, 1, 1, 2)
    gate = torch.tensor([1.0, 0.0]).repeat_interleave(2).reshape(1, 1, 1, 1, 4).expand(1, 1, 2, 2, 4)
    assert tumor_pool(features, gate).item() == pytest.approx((2 + 0.06) / 1.01)
    assert tumor_pool(features, torch.zeros_like(gate)).item() == pytest.approx(4)


def test_forcing_blends_the_gate_where_the_mask_is_known(tiny: MTSUNet, images: torch.Tensor) -> None:
    mask = torch.zeros(2, 1, *SIZE)
    mask[:, :, :16] = 1
    known = torch.tensor([True, False])
    with torch.no_grad():
        predicted = torch.sigmoid(tiny.segment(images, _present(2))["wt"])
        _, features = tiny.backbone(images)
        gate = tiny._gate({}, features, mask, known, 0.75)
        plain = tiny(images, _present(2))
        forced = tiny(images, _present(2), mask, known, forcing=1.0)
    torch.testing.assert_close(gate[0], 0.75 * mask[0] + 0.25 * predicted[0])
    torch.testing.assert_close(gate[1], predicted[1])
    assert torch.equal(forced["wt"], plain["wt"])
    assert not torch.allclose(forced["idh"][0], plain["idh"][0])
    torch.testing.assert_close(forced["idh"][1], plain["idh"][1])


def test_as_coded_follows_the_prediction_alone(images: torch.Tensor) -> None:
    network = build_network(_config(tumor_aware="none", cross_modality="as-coded"), EVERY).eval()
    with torch.no_grad():
        plain = network(images[:1], _present())
        forced = network(images[:1], _present(), torch.ones(1, 1, *SIZE), forcing=1.0)
    assert torch.equal(plain["idh"], forced["idh"])


def test_class_losses_do_not_reach_the_segmentation(tiny: MTSUNet, images: torch.Tensor) -> None:
    tiny(images[:1], _present())["idh"].sum().backward()
    found = _gradients(tiny).keys()
    tiny.zero_grad()
    assert any(name.startswith("backbone.swinViT") for name in found)
    assert not any(name.startswith(("backbone.decoder", "backbone.encoder", "heads.wt")) for name in found)


def test_missing_sequences(tiny: MTSUNet, images: torch.Tensor) -> None:
    """An absent channel is not read, even where it holds NaN, and only its token gets a gradient."""
    present = _present(2)
    present[1, 1] = False
    broken = images.clone()
    broken[1, 1] = torch.nan
    logits = tiny(broken, present)
    sum(output.sum() for output in logits.values()).backward()
    gradients = _gradients(tiny)
    tiny.zero_grad()
    assert gradients["missing_token"][1] != 0
    assert gradients["missing_token"][[0, 2, 3]].abs().sum() == 0
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    with torch.no_grad():
        zeros = images.clone()
        zeros[1, 1] = 7
        again = tiny(zeros, present)
    assert all(torch.allclose(again[name], logits[name], atol=1e-4) for name in logits)


@pytest.mark.parametrize("gone", [T2, FLAIR])
def test_cmd_without_t2_or_flair_is_the_learned_vector(gone: int, images: torch.Tensor) -> None:
    cmd = CrossModalityDifferential()
    torch.nn.init.normal_(cmd.absent)
    present = _present(2)
    present[1, gone] = False
    vector = cmd(images, present, torch.ones(2, 1, *SIZE))
    assert torch.equal(vector[1], cmd.absent)
    assert not torch.allclose(vector[0], cmd.absent)
    vector[1].sum().backward()
    gradients = _gradients(cmd)
    assert torch.equal(gradients.pop("absent"), torch.ones_like(cmd.absent))
    assert all(torch.count_nonzero(gradient) == 0 for gradient in gradients.values())


@pytest.mark.long
def test_base_trains_at_96_cubed(two_threads: None) -> None:
    """Forward and backward of the full-size network on its usual crop."""
    network = build_network(_config(preset="base"), EVERY)
    logits = network(torch.randn(1, 4, 96, 96, 96), _present(), torch.ones(1, 1, 96, 96, 96), forcing=0.5)
    assert logits["et"].shape == (1, 1, 96, 96, 96)
    sum(output.mean() for output in logits.values()).backward()
    gradients = _gradients(network)
    assert gradients.keys() == {name for name, _ in network.named_parameters()} - {"missing_token"}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
