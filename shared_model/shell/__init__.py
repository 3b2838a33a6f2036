"""The app that Flower carries to the sites: one pyproject.toml and not a line of code.

The engine imports `server.app` and `client.app` from the installed packages, so the code that runs in a hospital is the
release that the hospital installed. The bytes are built once per release by `python -m server.superlink.shell` and kept
beside this file, since another compressor may pack equal content into other bytes; a site refuses any other app.
"""

import hashlib
import io
import zipfile
from importlib.resources import files

CONTENT = (files(__package__) / "shell.fab").read_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FILES = ("pyproject.toml", ".info/CONTENT")
"""All that the archive may hold."""


def fault(content: bytes) -> str | None:
    """Why an app is not this release's shell, in words that name both hashes; None if it is."""
    digest = hashlib.sha256(content).hexdigest()
    if digest == DIGEST:
        return None
    both = f"app {digest} is not this release's shell {DIGEST}"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            more = sorted(set(archive.namelist()) - set(FILES))
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return f"{both}; it is no archive"
    return f"{both}; it carries {len(more)} more files" if more else both
