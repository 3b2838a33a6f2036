"""Four scanners, and how each turns tissue and tumour into images.

Every tumour voxel is painted at a z against the patient's healthy brain; the medians of real cases are in REGION_Z.
What differs between hospitals comes after: contrast dose, how dark CSF is in FLAIR, what brain extraction leaves, slice
thickness, bias field, gamma, gain and Rician noise.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from client.data.phantom.anatomy import Brain, smooth_noise
from client.data.phantom.diagnosis import Look
from client.data.phantom.tumor import CORE, EDEMA, ENHANCING, pushed
from shared_model.tasks import MODALITIES

TISSUE = {"t1": (1.0, 0.75, 0.35), "t1ce": (0.95, 0.76, 0.35), "t2": (0.5, 0.68, 1.5), "flair": (0.62, 0.76, 0.3)}
"""Signal of white matter, grey matter and CSF; that of CSF in FLAIR is the scanner's."""
REGION_Z = {
    CORE: {"t1": -0.2, "t1ce": -0.8, "t2": 3.1, "flair": 3.6},
    EDEMA: {"t1": 0.1, "t1ce": 0.0, "t2": 2.0, "flair": 3.0},
    ENHANCING: {"t1": 0.2, "t1ce": 2.2, "t2": 2.7, "flair": 3.6},
}
"""z of each region, medians of 14 real BraTS cases."""

FAT = 1.8
"""Signal of what is left of the scalp, in brain means."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Scanner:
    """Ranges from which each exam draws.

    Attributes:
        gamma: exponent of the signal.
        bias: half range of the multiplicative bias field.
        snr: mean brain signal over noise.
        slice_mm: thickness, blurred along `slice_axis`.
        slice_axis: 0 sagittal, 1 coronal, 2 axial.
        dose: factor on enhancement.
        gain: digital units of a signal of 1.
        grey: factor on the contrast of grey against white matter.
        flair_csf: signal of CSF in FLAIR; high where the inversion time does not suppress it.
        rim: how much of the scalp's bright fat the brain extraction leaves along the surface, 0 to 1.
        conspicuity: factor on the tumour's z in T2 and FLAIR.
    """

    gamma: Range
    bias: Range
    snr: Range
    slice_mm: Range
    slice_axis: int
    dose: Range
    gain: Range
    grey: Range
    flair_csf: Range
    rim: Range
    conspicuity: Range


SCANNERS = {
    "alder": Scanner(
        gamma=(0.95, 1.1), bias=(0.1, 0.15), snr=(32, 40), slice_mm=(1, 1.5), slice_axis=2, dose=(1.1, 1.25),
        gain=(900, 1200), grey=(0.95, 1.1), flair_csf=(0.25, 0.35), rim=(0, 0), conspicuity=(1.0, 1.15),
    ),
    "birch": Scanner(
        gamma=(1.2, 1.4), bias=(0.15, 0.2), snr=(28, 34), slice_mm=(3, 4), slice_axis=2, dose=(1.25, 1.45),
        gain=(250, 400), grey=(1.2, 1.5), flair_csf=(0.15, 0.25), rim=(0, 0), conspicuity=(1.0, 1.2),
    ),
    "cedar": Scanner(
        gamma=(0.7, 0.8), bias=(0.15, 0.25), snr=(24, 30), slice_mm=(3.5, 5.5), slice_axis=2, dose=(1.1, 1.3),
        gain=(2000, 3000), grey=(0.5, 0.7), flair_csf=(0.45, 0.6), rim=(0.7, 1.0), conspicuity=(0.95, 1.1),
    ),
    "dogwood": Scanner(
        gamma=(0.9, 1.3), bias=(0.25, 0.4), snr=(18, 25), slice_mm=(3, 5), slice_axis=0, dose=(0.65, 0.85),
        gain=(80, 150), grey=(0.7, 1.3), flair_csf=(1.0, 1.15), rim=(0, 0), conspicuity=(0.85, 1.0),
    ),
}  # fmt: skip


def acquire(
    brain: Brain, mask: np.ndarray, look: Look, scanner: Scanner, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """(X, Y, Z) int16 image of each modality, zero outside the brain."""
    tissue = pushed(brain, mask, rng)
    shape, voxel = mask.shape, brain.voxel_mm
    shares = _shares(mask, look, voxel)
    texture = smooth_noise(shape, 7 / voxel, rng)
    spots = look.spots * np.clip(smooth_noise(shape, 5 / voxel, rng) - 0.8, 0, 1.5)
    vessels = np.clip(smooth_noise(shape, 6 / voxel, rng) - 1.3, 0, 1) * tissue[2] * (shares.sum(0) < 0.1)
    dose, conspicuity, grey = (rng.uniform(*span) for span in (scanner.dose, scanner.conspicuity, scanner.grey))
    flair_csf, left = rng.uniform(*scanner.flair_csf), rng.uniform(*scanner.rim)
    rim = left * _surface(brain, mask) * np.clip(smooth_noise(shape, 25 / voxel, rng) + 0.5, 0, 1)
    thickness, bias = rng.uniform(*scanner.slice_mm), rng.uniform(*scanner.bias)
    healthy = brain.mask & (mask == 0)

    images = {}
    for name in MODALITIES:
        white_signal, grey_signal, csf_signal = TISSUE[name]
        if name == "flair":
            csf_signal = flair_csf
        grey_signal = white_signal + grey * (grey_signal - white_signal)
        levels = np.array([white_signal, grey_signal, csf_signal], np.float32)
        signal = np.tensordot(levels, tissue, 1)  # (X, Y, Z)
        mean = float(signal[healthy].mean())
        snr = rng.uniform(*scanner.snr)
        # deviation of the finished image: anatomy, noise and bias
        std = float(np.sqrt(signal[healthy].var() + (mean / snr) ** 2 + (mean * bias / 2) ** 2))
        z = np.zeros(shape, np.float32)
        for region, share in zip((CORE, EDEMA, ENHANCING), shares, strict=True):
            z += share * _region_z(region, name, look, dose, conspicuity)
        z += shares[0] * (look.texture * texture - 2.5 * spots) + 0.25 * shares[1] * texture
        signal = signal * (1 - shares.sum(0)) + shares.sum(0) * mean + std * z
        if name == "t1ce":
            signal += 2.5 * dose * std * vessels
        signal = signal * (1 - rim) + FAT * mean * rim
        sigma = thickness / 2.355 / voxel
        signal = ndimage.gaussian_filter1d(signal, sigma, axis=scanner.slice_axis)
        field = smooth_noise(shape, 70 / voxel, rng)
        signal = np.clip(signal, 0.02, None) ** rng.uniform(*scanner.gamma) * np.exp(bias * np.clip(field, -2, 2) / 2)
        noise = float(signal[healthy].mean()) / snr
        real, imaginary = noise * rng.standard_normal((2, *shape), np.float32)
        signal = np.hypot(signal + real, imaginary) * rng.uniform(*scanner.gain)
        images[name] = np.where(brain.mask, np.clip(np.rint(signal), 1, 32_000), 0).astype(np.int16)
    return images


def _region_z(region: int, name: str, look: Look, dose: float, conspicuity: float) -> float:
    """z of one region in one modality: the median of real cases, unless this tumour's look says otherwise."""
    z = REGION_Z[region][name]
    if region == CORE and name in ("t2", "flair"):
        z = look.core_t2 if name == "t2" else look.core_flair
    if region == EDEMA and name == "flair":
        z = look.edema_flair
    if region == ENHANCING and name == "t1ce":
        z *= dose
    return z * conspicuity if name in ("t2", "flair") else z


def _surface(brain: Brain, mask: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: the outermost 3 mm of the brain, where there is no tumour."""
    inner = ndimage.binary_erosion(brain.mask, iterations=max(1, round(3 / brain.voxel_mm)))
    return brain.mask & ~inner & (mask == 0)


def _shares(mask: np.ndarray, look: Look, voxel_mm: float) -> np.ndarray:
    """(3, X, Y, Z) float32 share of core, oedema and enhancing tumour in each voxel; the outer edge fades."""
    inner = np.stack([ndimage.gaussian_filter((mask == r).astype(np.float32), 0.4) for r in (CORE, EDEMA, ENHANCING)])
    whole = ndimage.gaussian_filter((mask > 0).astype(np.float32), look.border_mm / 2.355 / voxel_mm)
    return inner / np.maximum(inner.sum(0), 1e-6) * np.where(inner.sum(0) > 1e-3, whole, 0)
