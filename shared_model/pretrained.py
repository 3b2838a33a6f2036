"""BrainSegFounder weights (arXiv 2406.10395) from a user's own file: loaded in full and with their meaning, or refused.

Two kinds of file are read: the self-supervised encoder (`swinViT.*` beside pretext heads) and the fine-tuned SwinUNETR
(`swinViT.*`, `encoder*`, `decoder*`, `out`). What a file holds is told from its keys and shapes, never from its name.
Matching keys and shapes do not prove a match of meaning: channel order and patch merging are handled here by name.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from shared_model.config import ModelConfig
from shared_model.errors import WeightsError
from shared_model.network import BackboneShape, MTSUNet, backbone_shape
from shared_model.tasks import MODALITIES

Weights = dict[str, torch.Tensor]

_STEM = "swinViT.patch_embed.proj.weight"
_IMAGE_KEYS = (_STEM, "encoder1.layer.conv1.conv.weight", "encoder1.layer.conv3.conv.weight")
"""Weights that read the image; their second axis is the input channel."""
_PRETEXT_HEADS = ("rotation_head.", "contrastive_head.", "conv.")
_BRATS_ORDER = ("flair", "t1ce", "t1", "t2")
"""Channel order of the files with four channels."""
_OWN_FILE = "give a BrainSegFounder encoder or fine-tuned BraTS checkpoint, unchanged"


@dataclass(frozen=True)
class ImportReport:
    """What was loaded, for the model's record.

    Attributes:
        sha256: of the file.
        format: `ssl`, the encoder alone, or `fine-tuned`, the whole backbone.
        tensors: tensors of the file that are now in the network, index tables included.
        parameters: numbers in them, index tables left out.
        channels: input channels of the file.
        stem: how they became the four of this network.
        dropped: keys of the file that were left out, sorted.
        patch_merging: slicing that the weights are run with.
    """

    sha256: str
    format: Literal["ssl", "fine-tuned"]
    tensors: int
    parameters: int
    channels: int
    stem: str
    dropped: tuple[str, ...]
    patch_merging: str


def load_brainsegfounder(network: MTSUNet, path: Path, model_config: ModelConfig) -> ImportReport:
    """Put a BrainSegFounder file into `network.backbone`, in place. On refusal the network is as before.

    Left out of the network: pretext heads, and the output layer of a fine-tuned file, since no file says which region
    its channels are. What the file does not have keeps its value: an encoder fills 13 % of a base network.

    Raises:
        WeightsError: the file is not readable as plain tensors, is no such checkpoint, is not of the preset's depth or
            width, lacks or has keys beyond the expected, or holds a number that is not finite; or the configuration
            would run the weights with the current patch merging.
        ValueError: `model_config` is not what the network was built from.
    """
    if network.config != model_config:
        raise ValueError("the network was built from another configuration")
    if model_config.patch_merging != "legacy":
        raise WeightsError(
            "model.patch_merging: current gives BrainSegFounder weights another meaning", "set it to legacy"
        )
    weights = _named_weights(_read(path), path)
    kind: Literal["ssl", "fine-tuned"] = (
        "fine-tuned" if any(key.startswith(("encoder", "decoder", "out.")) for key in weights) else "ssl"
    )
    dropped = tuple(sorted(key for key in weights if _is_dropped(key, kind)))
    kept = {key: value for key, value in weights.items() if key not in dropped}
    own: Weights = network.backbone.state_dict()
    expected = own if kind == "fine-tuned" else {key: own[key] for key in own if key.startswith("swinViT.")}
    _check_architecture(kept, backbone_shape(model_config.preset), path)
    _check_keys(kept, expected, path)
    channels = kept[_STEM].shape[1]
    if kind == "fine-tuned":
        _check_fine_tuned(weights, channels, path)
    stem = _stem_rule(channels, path)
    _check_shapes(kept, expected, channels, path)
    adapted = {key: _adapt_channels(value) if key in _IMAGE_KEYS else value for key, value in kept.items()}
    _check_values(adapted, expected, path)
    network.backbone.load_state_dict({**own, **adapted}, strict=True)
    return ImportReport(
        sha256=_sha256(path),
        format=kind,
        tensors=len(kept),
        parameters=sum(value.numel() for value in adapted.values() if value.is_floating_point()),
        channels=channels,
        stem=stem,
        dropped=dropped,
        patch_merging=model_config.patch_merging,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: Path) -> Any:
    """Content of a checkpoint in either of torch's formats; only tensors and plain containers are ever built."""
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file", "check the path")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: the file is empty", "fetch it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        raise WeightsError(
            f"{path}: not readable as tensors alone; it is cut short or holds Python objects ({type(error).__name__})",
            "fetch it again, or export its state_dict by itself where you trust it",
        ) from error


def _named_weights(content: Any, path: Path) -> Weights:
    """The state dict, bare or inside a checkpoint dict, with one `module.` taken off each key."""
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        raise WeightsError(f"{path}: holds no state_dict", _OWN_FILE)
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()):
        raise WeightsError(f"{path}: its state_dict holds more than named tensors", _OWN_FILE)
    named = {key.removeprefix("module."): value for key, value in weights.items()}
    if len(named) < len(weights):
        raise WeightsError(f"{path}: has the same key with and without 'module.'", _OWN_FILE)
    if any(key.startswith("swinViT.swinViT.") for key in named):
        raise WeightsError(
            f"{path}: the prefix 'swinViT.' stands twice, as a faulty conversion leaves it", "give the original file"
        )
    return named


def _is_dropped(key: str, kind: str) -> bool:
    return key.startswith(_PRETEXT_HEADS) if kind == "ssl" else key.startswith("out.")


def _check_architecture(kept: Weights, shape: BackboneShape, path: Path) -> None:
    """Depth and width of the file against the preset, before the keys: they make the clearest complaint."""
    stem = kept.get(_STEM)
    if stem is None or stem.ndim != 5:
        raise WeightsError(f"{path}: has no tensor {_STEM} of five axes", _OWN_FILE)
    blocks = {match.groups() for key in kept if (match := re.match(r"swinViT\.layers([1-4])\.0\.blocks\.(\d+)\.", key))}
    depths = tuple(sum(stage == wanted for stage, _ in blocks) for wanted in "1234")
    if depths != shape.depths:
        raise WeightsError(
            f"{path}: has stages of {depths} blocks, the model of {shape.depths}",
            "set model.preset to base for (2, 2, 2, 2) or to small for (2, 2, 6, 2)",
        )
    if stem.shape[0] != shape.feature_size:
        raise WeightsError(
            f"{path}: is {stem.shape[0]} features wide, the model {shape.feature_size}",
            "set model.preset to base or small for a width of 48",
        )


def _check_keys(kept: Weights, expected: Weights, path: Path) -> None:
    missing = [key for key in expected if key not in kept]
    unknown = [key for key in kept if key not in expected]
    if missing or unknown:
        lacks = f"lacks {len(missing)} of {len(expected)} tensors" + (f", first {missing[0]}" if missing else "")
        extra = f"has {len(unknown)} unknown" + (f", first {unknown[0]}" if unknown else "")
        raise WeightsError(f"{path}: {lacks}; {extra}", _OWN_FILE)


def _check_fine_tuned(weights: Weights, channels: int, path: Path) -> None:
    outputs = weights["out.conv.conv.weight"].shape[0] if "out.conv.conv.weight" in weights else 0
    if outputs != 3:
        raise WeightsError(f"{path}: its output layer has {outputs} classes, a BraTS checkpoint 3", _OWN_FILE)
    if channels != len(_BRATS_ORDER):
        raise WeightsError(f"{path}: reads {channels} channels, a BraTS checkpoint 4", _OWN_FILE)


def _stem_rule(channels: int, path: Path) -> str:
    """In words what `_adapt_channels` does. Both sums are kept: equal images give the activation of the source."""
    rules = {
        1: f"one channel, a quarter of it for each of {', '.join(MODALITIES)}",
        2: "T1, T2: half of T1 each for t1 and t1ce, half of T2 each for t2 and flair",
        4: f"order {', '.join(_BRATS_ORDER)} permuted to {', '.join(MODALITIES)}",
    }
    if channels not in rules:
        raise WeightsError(f"{path}: reads {channels} channels; 1, 2 and 4 are known", _OWN_FILE)
    return rules[channels]


def _adapt_channels(weight: torch.Tensor) -> torch.Tensor:
    """(F, 1 | 2 | 4, k, k, k) -> (F, 4, k, k, k) in the order of MODALITIES."""
    channels = weight.shape[1]
    if channels == 1:
        return weight.repeat(1, 4, 1, 1, 1) / 4
    if channels == 2:
        return weight[:, [0, 0, 1, 1]] / 2
    return weight[:, [_BRATS_ORDER.index(name) for name in MODALITIES]]


def _check_shapes(kept: Weights, expected: Weights, channels: int, path: Path) -> None:
    """Shapes and kinds of number, before anything is computed: a tensor of stride 0 may claim any size."""
    for key, value in kept.items():
        own = expected[key]
        shape = (own.shape[0], channels, *own.shape[2:]) if key in _IMAGE_KEYS else tuple(own.shape)
        same_kind = value.dtype == own.dtype or (value.is_floating_point() and own.is_floating_point())
        if tuple(value.shape) != shape or value.layout != torch.strided or not same_kind:
            raise WeightsError(
                f"{path}: {key} is {value.dtype} {tuple(value.shape)}, the model's {own.dtype} {shape}", _OWN_FILE
            )


def _check_values(adapted: Weights, expected: Weights, path: Path) -> None:
    """Finite values; index tables must be equal, or position biases mean something else."""
    for key, value in adapted.items():
        own = expected[key]
        if not value.is_floating_point() and not torch.equal(value, own.cpu()):
            raise WeightsError(f"{path}: {key} orders the window's positions differently", _OWN_FILE)
        if not bool(torch.isfinite(value.to(own.dtype)).all()):
            raise WeightsError(f"{path}: {key} holds numbers that are not finite", "fetch the file again")
