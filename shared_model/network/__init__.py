"""MTS-UNET: one SwinUNETR, three regions and three classes."""

from shared_model.network.encoder import BackboneShape, backbone_shape
from shared_model.network.mtsunet import MTSUNet, build_network

__all__ = ["BackboneShape", "MTSUNet", "backbone_shape", "build_network"]
