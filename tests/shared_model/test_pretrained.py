"""BrainSegFounder files: each form that is read, each trap that is refused. The files here are of random weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shared_model.config import ModelConfig
from shared_model.errors import WeightsError
from shared_model.network import MTSUNet, build_network
from shared_model.pretrained import load_brainsegfounder

Weights = dict[str, torch.Tensor]
Save = Callable[[Any], Path]

STEM = "swinViT.patch_embed.proj.weight"
CONV = "encoder1.layer.conv1.conv.weight"
QKV = "swinViT.layers2.0.blocks.1.attn.qkv.weight"
INDEX = "swinViT.layers1.0.blocks.0.attn.relative_position_index"


def _config(preset: str = "base") -> ModelConfig:
    return ModelConfig.model_validate({"preset": preset, "patch_merging": "legacy"})


def _random(weights: Weights) -> Weights:
    """Other values for every weight; index tables as they are."""
    return {
        key: torch.randn(value.shape) * 0.02 if value.is_floating_point() else value.clone()
        for key, value in weights.items()
    }


def _encoder(network: MTSUNet) -> Weights:
    own = {key: value for key, value in network.backbone.state_dict().items() if key.startswith("swinViT.")}
    return _random(own)


@pytest.fixture(scope="module")
def base() -> MTSUNet:
    torch.manual_seed(0)
    return build_network(_config(), ("wt",))


@pytest.fixture(scope="module")
def encoder(base: MTSUNet) -> Weights:
    """What a Tiny encoder file holds, four channels, no prefix."""
    return _encoder(base)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: Any) -> Path:
        path = tmp_path / "weights.pt"
        torch.save(content, path)
        return path

    return write


def _pretext() -> Weights:
    return {
        "rotation_head.weight": torch.zeros(4, 768),
        "contrastive_head.bias": torch.zeros(512),
        "conv.0.weight": torch.zeros(1),
    }


def _checkpoint(weights: Weights) -> dict[str, Any]:
    prefixed = {f"module.{key}": value for key, value in (weights | _pretext()).items()}
    return {"epoch": 7, "state_dict": prefixed, "optimizer": {"state": {}}}


def _refusal(path: Path, network: MTSUNet, config: ModelConfig | None = None) -> str:
    """The message of the refusal; the network must be untouched."""
    before = {key: value.clone() for key, value in network.backbone.swinViT.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_brainsegfounder(network, path, config or _config())
    after = network.backbone.swinViT.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_ssl_checkpoint(base: MTSUNet, encoder: Weights, save: Save) -> None:
    """126 tensors under `module.` beside pretext heads; FLAIR, T1ce, T1, T2 become t1, t1ce, t2, flair."""
    path = save(_checkpoint(encoder))
    decoder = base.backbone.decoder1.state_dict()["transp_conv.conv.weight"].clone()
    report = load_brainsegfounder(base, path, _config())
    own = base.backbone.state_dict()
    assert torch.equal(own[STEM], torch.stack([encoder[STEM][:, source] for source in (2, 1, 3, 0)], dim=1))
    assert all(torch.equal(own[key], value) for key, value in encoder.items() if key != STEM)
    assert torch.equal(own["decoder1.transp_conv.conv.weight"], decoder)
    assert (report.format, report.tensors, report.parameters, report.channels) == ("ssl", 126, 8_063_154, 4)
    assert report.dropped == ("contrastive_head.bias", "conv.0.weight", "rotation_head.weight")
    assert report.patch_merging == "legacy"
    assert "permuted" in report.stem
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_bare_state_dict_in_the_old_file_format(base: MTSUNet, encoder: Weights, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(encoder, path, _use_new_zipfile_serialization=False)
    report = load_brainsegfounder(base, path, _config())
    assert report.dropped == ()
    assert torch.equal(base.backbone.state_dict()[QKV], encoder[QKV])


@pytest.mark.parametrize(("channels", "sources"), [(1, (0, 0, 0, 0)), (2, (0, 0, 1, 1))])
def test_fewer_channels(channels: int, sources: tuple[int, ...], base: MTSUNet, encoder: Weights, save: Save) -> None:
    """Shares that add up to the file's filter, so equal images give the source's activation."""
    stem = torch.randn(48, channels, 2, 2, 2)
    report = load_brainsegfounder(base, save(encoder | {STEM: stem}), _config())
    own = base.backbone.state_dict()[STEM]
    torch.testing.assert_close(own, stem[:, list(sources)] * channels / 4)
    torch.testing.assert_close(own.sum(1), stem.sum(1))
    assert report.channels == channels


def test_small_encoder(save: Save, encoder: Weights, base: MTSUNet) -> None:
    """182 tensors; a Tiny file in a Small model and the reverse are refused by their depths."""
    small = build_network(_config("small"), ("wt",))
    weights = _encoder(small)
    path = save(_checkpoint(weights))
    assert load_brainsegfounder(small, path, _config("small")).parameters == 9_948_066
    assert torch.equal(small.backbone.state_dict()[QKV], weights[QKV])
    message = _refusal(path, base)
    assert "stages of (2, 2, 6, 2) blocks, the model of (2, 2, 2, 2)" in message
    assert "Set model.preset to base for (2, 2, 2, 2) or to small for (2, 2, 6, 2)." in message
    assert "(2, 2, 2, 2) blocks, the model of (2, 2, 6, 2)" in _refusal(save(encoder), small, _config("small"))


def test_fine_tuned_file(base: MTSUNet, tmp_path: Path) -> None:
    """The whole backbone; weights that read the image are permuted, `out` is left out; other classes are refused."""
    weights = _random(base.backbone.state_dict())
    weights |= {"out.conv.conv.weight": torch.zeros(3, 48, 1, 1, 1), "out.conv.conv.bias": torch.zeros(3)}
    path = tmp_path / "fine-tuned.pt"
    torch.save(weights | {"out.conv.conv.weight": torch.zeros(2, 48, 1, 1, 1)}, path)
    assert "output layer has 2 classes" in _refusal(path, base)
    torch.save({"state_dict": weights}, path)
    report = load_brainsegfounder(base, path, _config())
    own = base.backbone.state_dict()
    order = [2, 1, 3, 0]
    for key in (STEM, CONV, "encoder1.layer.conv3.conv.weight"):
        assert torch.equal(own[key], weights[key][:, order]), key
    for key in ("encoder10.layer.conv1.conv.weight", "decoder1.transp_conv.conv.weight", QKV):
        assert torch.equal(own[key], weights[key]), key
    assert report.format == "fine-tuned"
    assert report.dropped == ("out.conv.conv.bias", "out.conv.conv.weight")
    assert report.parameters == 62_191_941 - 147


def test_current_merging_is_refused(encoder: Weights, save: Save) -> None:
    current = ModelConfig.model_validate({"preset": "base"})
    message = _refusal(save(encoder), build_network(current, ("wt",)), current)
    assert message.startswith("model.patch_merging: current")
    assert message.endswith("Set it to legacy.")


def test_a_network_of_another_configuration(base: MTSUNet, encoder: Weights, save: Save) -> None:
    with pytest.raises(ValueError, match="another configuration"):
        load_brainsegfounder(base, save(encoder), _config("small"))


def test_doubled_prefix(base: MTSUNet, encoder: Weights, save: Save) -> None:
    """What replacing `module.` by `swinViT.` leaves behind."""
    path = save({f"swinViT.{key}": value for key, value in encoder.items()})
    assert "'swinViT.' stands twice" in _refusal(path, base)


def test_wrong_width(encoder: Weights, save: Save) -> None:
    tiny = build_network(_config("tiny"), ("wt",))
    assert "is 48 features wide, the model 12" in _refusal(save(encoder), tiny, _config("tiny"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda weights: weights.pop(QKV), f"lacks 1 of 126 tensors, first {QKV}; has 0 unknown"),
        (
            lambda weights: weights.update({"extra": torch.zeros(1)}),
            "lacks 0 of 126 tensors; has 1 unknown, first extra",
        ),
        (lambda weights: weights.pop(STEM), f"has no tensor {STEM}"),
        (lambda weights: weights.update({STEM: torch.zeros(48, 3, 2, 2, 2)}), "reads 3 channels"),
        (lambda weights: weights.update({QKV: torch.zeros(1)}), f"{QKV} is torch.float32 (1,), the model's"),
        (lambda weights: weights.update({QKV: weights[QKV].long()}), f"{QKV} is torch.int64"),
        (lambda weights: weights.update({QKV: weights[QKV] * torch.nan}), f"{QKV} holds numbers that are not finite"),
        (lambda weights: weights.update({QKV: weights[QKV].to_sparse()}), f"{QKV} is torch.float32"),
        (lambda weights: weights.update({INDEX: weights[INDEX].int()}), f"{INDEX} is torch.int32"),
        (lambda weights: weights.update({INDEX: weights[INDEX][:8]}), f"{INDEX} is torch.int64 (8, 343)"),
        (lambda weights: weights.update({INDEX: weights[INDEX].flip(0)}), "orders the window's positions differently"),
        (lambda weights: weights.update({f"module.{QKV}": weights[QKV]}), "with and without 'module.'"),
        (lambda weights: weights.update({"epoch": 3}), "holds more than named tensors"),
    ],
)
def test_faulty_encoders(
    change: Callable[[dict[str, Any]], object], complaint: str, base: MTSUNet, encoder: Weights, save: Save
) -> None:
    weights: dict[str, Any] = dict(encoder)
    change(weights)
    assert complaint in _refusal(save(weights), base)


def test_files_that_are_no_weights(base: MTSUNet, encoder: Weights, save: Save, tmp_path: Path) -> None:
    """Pickled object, cut short in either format, empty, absent, text, no dict."""
    assert "holds Python objects" in _refusal(save(torch.nn.Linear(2, 2)), base)
    whole = save(encoder).read_bytes()
    path = tmp_path / "faulty.pt"
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut short" in _refusal(path, base)
    torch.save(encoder, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: len(whole) // 2])
    assert "cut short" in _refusal(path, base)
    path.write_bytes(b"")
    assert "the file is empty" in _refusal(path, base)
    path.write_text("not weights")
    assert "cut short" in _refusal(path, base)
    assert "holds no state_dict" in _refusal(save([1, 2]), base)
    assert "holds no state_dict" in _refusal(save({}), base)
    assert "there is no such file" in _refusal(tmp_path / "none.pt", base)
