"""DICOM series to NIfTI through dcm2niix, whose wheel carries the program."""

import subprocess
from pathlib import Path

from shared_model.errors import DataError

LIMIT_SECONDS = 600


def convert(series: Path, out: Path) -> Path:
    """The one volume of a folder of DICOM files, as a NIfTI below `out`; no sidecar and no name in its header.

    Raises:
        DataError: no volume, or more than one, or the program fails.
    """
    import dcm2niix

    out.mkdir(parents=True)
    command = [dcm2niix.bin, "-b", "n", "-z", "y", "-t", "n", "-f", "series", "-c", "", "-o", str(out), str(series)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(f"{series}: dcm2niix took over {LIMIT_SECONDS} s", "check the files") from None
    found = sorted(out.glob("*.nii.gz"))
    if not found:
        raise DataError(f"{series}: dcm2niix found no volume (code {done.returncode})", "name one series' folder")
    if len(found) > 1:
        raise DataError(f"{series}: holds {len(found)} volumes", "put each series into a folder of its own")
    return found[0]
