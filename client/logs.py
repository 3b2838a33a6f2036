"""The site's own log of what went wrong: where in the code and what kind of error, never its message.

Messages of the engine, of MONAI and of image readers name files, and files are named after patients. The file at fault
is named by `mtsunet-client check`, on the terminal alone.
"""

import traceback
from datetime import UTC, datetime
from pathlib import Path

from shared_model.checkpoint import open_to_append

LIMIT_BYTES = 5 << 20
"""Where a log begins anew; the one before is kept as .1."""
PACKAGES = ("client", "server", "shared_model")
ROOT = Path(__file__).resolve().parents[1]


def note_failure(state: Path, error: BaseException) -> None:
    """Append a failure to state/logs/errors.log."""
    path = state / "logs" / "errors.log"
    frames = [_place(frame) for frame in traceback.extract_tb(error.__traceback__)]
    lines = [f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z {type(error).__name__}", *(f"  {place}" for place in frames)]
    append(path, "\n".join(lines))


def append(path: Path, line: str) -> None:
    """Add to a log of the site's own, which with the one before it never takes more than twice LIMIT_BYTES."""
    if path.exists() and path.stat().st_size > LIMIT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    with open_to_append(path) as file:
        file.write(f"{line}\n".encode())


def _place(frame: traceback.FrameSummary) -> str:
    """File and line below our root, or the package of somebody else's code."""
    parts = Path(frame.filename).parts
    if "site-packages" in parts:
        below = parts[parts.index("site-packages") + 1 :]
        return f"{'/'.join(below)}:{frame.lineno}"
    path = Path(frame.filename)
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{frame.lineno} {frame.name}"
