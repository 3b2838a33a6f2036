"""Builds the app that travels. Run as a module, it writes the bytes that the release ships."""

from pathlib import Path

from flwr.cli.build import build_fab_from_files

import shared_model.shell as shell

FOLDER = Path(shell.__file__).parent


def build() -> bytes:
    """The app, built from the shell's pyproject.toml by Flower itself."""
    content, _ = build_fab_from_files({"pyproject.toml": (FOLDER / "pyproject.toml").read_bytes()})
    return bytes(content)


if __name__ == "__main__":
    (FOLDER / "shell.fab").write_bytes(build())
