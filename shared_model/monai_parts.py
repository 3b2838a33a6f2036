"""What is used of MONAI, read without the packages that it would bring along.

Whoever imports a part of MONAI gets all of it, and with it whatever MONAI can use and finds installed: pandas,
matplotlib, scikit-learn, most of SciPy. Nothing here calls what needs them, and reading them takes about half of
the time in which the process of a message starts. MONAI takes a package that cannot be imported for one that is not
installed: its functions that want it would say so when called. What was read before stays, and can be read afterwards.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXTRAS = (
    *("PIL", "cucim", "cupy", "cv2", "ignite", "itk", "jsonschema", "matplotlib", "mlflow", "nibabel", "pandas"),
    *("pydicom", "requests", "skimage", "sklearn", "tensorboard", "tensorboardX", "torchaudio", "torchvision", "tqdm"),
    *("transformers", "scipy.optimize", "scipy.signal", "scipy.sparse", "scipy.spatial", "scipy.stats"),
)
"""What MONAI 1.6 looks for and is slow to read, or would be on a machine that has it."""


class _NotHere:
    """Finder of modules that finds no extras, in the thread that made it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if threading.get_ident() == self._thread and f"{name}.".startswith(tuple(f"{extra}." for extra in EXTRAS)):
            raise ModuleNotFoundError(f"{name} is not read along with MONAI", name=name)


@contextmanager
def without_extras() -> Iterator[None]:
    """Let imports of EXTRAS fail, unless they were read before."""
    finder: Any = _NotHere()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with without_extras():
    from monai.inferers import sliding_window_inference
    from monai.networks.nets.swin_unetr import (
        BasicLayer,
        PatchMerging,
        SwinUNETR,
        WindowAttention,
        get_window_size,
    )
    from monai.transforms import Compose, NormalizeIntensity, RandFlip, RandScaleIntensity, RandShiftIntensity
    from monai.transforms.utils import generate_spatial_bounding_box

__all__ = [
    "BasicLayer",
    "Compose",
    "NormalizeIntensity",
    "PatchMerging",
    "RandFlip",
    "RandScaleIntensity",
    "RandShiftIntensity",
    "SwinUNETR",
    "WindowAttention",
    "generate_spatial_bounding_box",
    "get_window_size",
    "sliding_window_inference",
]
