"""MTS-UNET (arXiv 2503.06828): one SwinUNETR for all tasks, TAFE and CMD for the class tasks, a head for each."""

from collections.abc import Iterable

import torch
from torch import nn

from shared_model.config import ModelConfig
from shared_model.network.cross_modality import CrossModalityAsCoded, CrossModalityDifferential
from shared_model.network.encoder import Backbone, BackboneShape, backbone_shape
from shared_model.network.heads import ClassHead, ClassHeadAsCoded, region_head
from shared_model.network.tumor_aware import GlobalPooling, TumorAwarePooling, widen
from shared_model.tasks import MODALITIES, TASKS


def _tumor_aware(config: ModelConfig, shape: BackboneShape) -> TumorAwarePooling | GlobalPooling | None:
    if config.tumor_aware == "none":
        return None
    return TumorAwarePooling(shape) if config.tumor_aware == "ours" else GlobalPooling(shape)


def _cross_modality(config: ModelConfig) -> CrossModalityDifferential | CrossModalityAsCoded | None:
    if config.cross_modality == "none":
        return None
    return CrossModalityDifferential() if config.cross_modality == "ours" else CrossModalityAsCoded()


class MTSUNet(nn.Module):
    """Segmentation and classes of a glioma from four MRI sequences.

    Parameters are `backbone.*`, `missing_token`, `tumor_aware.*`, `cross_modality.*` and, for what belongs to one task
    alone, `heads.<task>.*`. The only buffers are the backbone's constant index tables.

    The tumour gate of TAFE and CMD is p = sigmoid(logit of the whole tumour), detached, so that the class losses do not
    bend the segmentation; where a mask is known it is forcing * mask + (1 - forcing) * p. Without a whole-tumour task
    the next region in order stands in, and without any region the gate is 1. Modules `as-coded` follow p alone.
    """

    def __init__(self, config: ModelConfig, tasks: tuple[str, ...]) -> None:
        super().__init__()
        shape = backbone_shape(config.preset)
        self.config = config
        self.tasks = tuple(name for name in TASKS if name in tasks)
        self.regions = tuple(name for name in self.tasks if TASKS[name].is_region)
        self.backbone = Backbone(shape, legacy_merging=config.patch_merging == "legacy")
        self.missing_token = nn.Parameter(torch.zeros(len(MODALITIES)))
        self.forced = "ours" in (config.tumor_aware, config.cross_modality)
        classify = len(self.regions) < len(self.tasks)
        self.tumor_aware = _tumor_aware(config, shape) if classify else None
        self.cross_modality = _cross_modality(config) if classify else None
        widths = tuple(stream.width for stream in (self.tumor_aware, self.cross_modality) if stream is not None)
        class_head = ClassHead if self.forced else ClassHeadAsCoded
        self.heads = nn.ModuleDict()
        for name in self.tasks:
            task = TASKS[name]
            self.heads[name] = (
                region_head(shape.feature_size) if task.is_region else class_head(widths, len(task.classes))
            )

    def forward(
        self,
        images: torch.Tensor,
        present: torch.Tensor,
        tumor_mask: torch.Tensor | None = None,
        mask_known: torch.Tensor | None = None,
        forcing: float = 0.0,
        tasks: Iterable[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Logits of every task, or of those named.

        Args:
            images: (B, 4, D, H, W) z-scored, channels in the order of MODALITIES, D, H, W multiples of 32.
            present: (B, 4) bool; an absent channel's voxels are not read. Left on the CPU, it is read without
                waiting for a GPU.
            tumor_mask: (B, 1, D, H, W) in {0, 1}, the whole tumour, for the gate.
            mask_known: (B,) bool, the samples whose mask is to be believed; all of them if left out.
            forcing: share of the mask in the gate, 0 to 1.
            tasks: names of the tasks to compute; all of the network's if left out.

        Returns:
            (B, 1, D, H, W) for a region, (B, C) for a class task, in the order of TASKS.
        """
        asked = set(self.tasks if tasks is None else tasks)
        filled = self._fill(images, present)
        present = present.to(images.device, non_blocking=True)
        hidden, features = self.backbone(filled)
        logits = {name: self.heads[name](features) for name in self.regions if name in asked}
        class_tasks = [name for name in self.tasks if name in asked and name not in self.regions]
        if class_tasks:
            with torch.autocast(images.device.type, enabled=False):
                gate = self._gate(logits, features, tumor_mask, mask_known, forcing if self.forced else 0.0)
                streams = []
                if self.tumor_aware is not None:
                    streams.append(self.tumor_aware(hidden, gate))
                if self.cross_modality is not None:
                    streams.append(self.cross_modality(widen(filled), present, gate))
                logits.update((name, self.heads[name](streams)) for name in class_tasks)
        return logits

    def segment(self, images: torch.Tensor, present: torch.Tensor) -> dict[str, torch.Tensor]:
        """Region logits alone, for sliding windows: as `forward`, without the class side."""
        return self(images, present, tasks=self.regions)

    def _fill(self, images: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Absent channels become their learned constant. With all present the token stays out of the graph."""
        if bool(present.all()):
            return images
        token = self.missing_token.to(images.dtype)[:, None, None, None]  # (4, 1, 1, 1)
        there = present.to(images.device, non_blocking=True)
        return torch.where(there[:, :, None, None, None], images, token)

    @torch.no_grad()
    def _gate(
        self,
        logits: dict[str, torch.Tensor],
        features: torch.Tensor,
        tumor_mask: torch.Tensor | None,
        mask_known: torch.Tensor | None,
        forcing: float,
    ) -> torch.Tensor:
        """Tumour gate of the class docstring, (B, 1, D, H, W) in [0, 1]."""
        if self.regions:
            name = self.regions[0]
            logit = logits[name] if name in logits else self.heads[name](widen(features))
            predicted = torch.sigmoid(widen(logit))
        else:
            predicted = torch.ones_like(widen(features[:, :1]))
        if tumor_mask is None or forcing == 0:
            return predicted
        blend = forcing * tumor_mask + (1 - forcing) * predicted
        return blend if mask_known is None else torch.where(mask_known[:, None, None, None, None], blend, predicted)


def build_network(config: ModelConfig, tasks: tuple[str, ...]) -> MTSUNet:
    """The network of a plan: `config` is the variant, `tasks` the heads. Weights are drawn from torch's generator."""
    return MTSUNet(config, tasks)
