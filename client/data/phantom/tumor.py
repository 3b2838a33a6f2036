"""A tumour that grows through a brain: fast in white matter, slowly in grey, stopped by CSF and by the skull."""

import itertools

import numpy as np
from scipy import ndimage

from client.data.phantom.anatomy import Brain, displaced, smooth_noise
from client.data.phantom.diagnosis import Look

CORE, EDEMA, ENHANCING = 1, 2, 4
"""Mask values of BraTS 2021."""
STEP_MM = 3.0
"""Growth is computed on a grid of about this step, and interpolated to finer ones."""


def arrival_times(slowness: np.ndarray, origin: tuple[int, ...]) -> np.ndarray:
    """When a front that starts at `origin` reaches each voxel: the shortest path over 26 neighbours.

    Args:
        slowness: (X, Y, Z) time per voxel edge; infinite where the front cannot go.
        origin: voxel of time 0.
    """
    times = np.full(slowness.shape, np.inf, np.float32)
    times[origin] = 0
    edges = []
    for step in itertools.product((-1, 0, 1), repeat=3):
        if any(step):
            here = tuple(slice(max(s, 0), size + min(s, 0)) for s, size in zip(step, slowness.shape, strict=True))
            there = tuple(slice(max(-s, 0), size + min(-s, 0)) for s, size in zip(step, slowness.shape, strict=True))
            length = np.sqrt(np.abs(step).sum()) / 2
            edges.append((here, there, (slowness[here] + slowness[there]) * np.float32(length)))
    reached = np.inf
    for _ in range(4 * max(slowness.shape)):
        for here, there, cost in edges:
            np.minimum(times[here], times[there] + cost, out=times[here])
        total = float(times[np.isfinite(times)].sum()) + np.isinf(times).sum() * 1e6
        if total == reached:
            break
        reached = total
    return times


def _origin(brain: Brain, look: Look, rng: np.random.Generator) -> tuple[int, ...]:
    """A voxel of the cerebrum to start from."""
    white, grey, _ = brain.tissue
    x, y, z = brain.place
    weight = white * grey if look.cortical else white * (white > 0.7)
    weight = weight * (np.abs(x) > 14) * (z > -22)
    weight = weight * ((y > 8) & (y < 58) if look.frontal else (y < 8) & (y > -85) & (z > -10))
    weight = weight.ravel().astype(np.float64)
    return tuple(int(i) for i in np.unravel_index(rng.choice(weight.size, p=weight / weight.sum()), brain.mask.shape))


def _lowest(field: np.ndarray, inside: np.ndarray, share: float) -> np.ndarray:
    """The `share` of the voxels `inside` where `field` is lowest."""
    out = np.zeros_like(inside)
    out[inside] = _ranks(field[inside]) < share
    return out


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value, from 0 to below 1."""
    ranks = np.empty(len(values), np.float32)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values)) / max(len(values), 1)
    return ranks


def grow_tumor(brain: Brain, look: Look, rng: np.random.Generator) -> np.ndarray:
    """(X, Y, Z) uint8 mask with the values 0, 1 (core that does not enhance), 2 (oedema), 4 (enhancing)."""
    voxel = brain.voxel_mm
    shape = brain.mask.shape
    origin = _origin(brain, look, rng)
    reach = int(np.ceil(2.3 * (look.volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3) / voxel)) + 2
    box = tuple(slice(max(o - reach, 0), min(o + reach + 1, size)) for o, size in zip(origin, shape, strict=True))
    white, grey, csf = brain.tissue[:, *box]
    size = white.shape
    open_to_growth = brain.mask[box] & (csf < 0.5)
    uneven = 0.4 * smooth_noise(size, 18 / voxel, rng) + 0.25 * smooth_noise(size, 8 / voxel, rng)
    slowness = np.where(open_to_growth, np.exp(uneven) / (white + 0.4 * grey + 0.05), np.inf).astype(np.float32)

    stride = max(1, round(STEP_MM / voxel))
    start = tuple((o - b.start) // stride for o, b in zip(origin, box, strict=True))
    coarse = slowness[::stride, ::stride, ::stride].copy()
    coarse[start] = 1.0
    times = arrival_times(coarse, start)
    if stride > 1:
        times[np.isinf(times)] = 2 * times[np.isfinite(times)].max()
        at = np.indices(size, np.float32) / stride  # (3, X, Y, Z) of the box
        times = ndimage.map_coordinates(times, at, order=1, mode="nearest")

    reachable = open_to_growth & np.isfinite(times)
    share = look.volume_ml * 1000 / voxel**3 / max(int(reachable.sum()), 1)
    whole = ndimage.binary_closing(_lowest(times, reachable, share)) & reachable
    depth = np.zeros(size, np.float32)
    depth[whole] = _ranks(times[whole])
    core = _lowest(depth + 0.12 * smooth_noise(size, 14 / voxel, rng), whole, look.core_share)
    mask = np.where(core, CORE, np.where(whole, EDEMA, 0)).astype(np.uint8)
    patches = smooth_noise(size, 10 / voxel, rng)
    depth[core] = _ranks(ndimage.distance_transform_edt(core)[core] + 0.01 * patches[core])
    enhances = depth * (4.0 if look.ring else 0.6) + 0.5 * patches
    mask[_lowest(enhances, core, look.enhancing_share)] = ENHANCING
    out = np.zeros(shape, np.uint8)
    out[box] = mask
    return out


def pushed(brain: Brain, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(3, X, Y, Z) tissue after the mass effect: what lies around the tumour moves outwards by up to about 8 mm."""
    sigma = 10 / brain.voxel_mm
    swelling = ndimage.gaussian_filter((mask > 0).astype(np.float32), sigma)
    slope = np.stack(np.gradient(swelling)) * sigma  # (3, X, Y, Z), points inwards
    push = rng.uniform(4, 8) / brain.voxel_mm / max(float(np.sqrt((slope**2).sum(0)).max()), 1e-6)
    tissue = displaced(brain.tissue, slope * push) * brain.mask
    return tissue / np.maximum(tissue.sum(0), 1e-6) * brain.mask
