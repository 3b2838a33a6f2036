"""A round over the network: ours, stock Flower and NVIDIA FLARE, with the same stub of training."""
