"""A patient's name and number put wherever they can stand at a hospital, and looked for wherever they must not be."""

import base64
import csv
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib

from shared_model.config import SiteConfig
from tests.network.world import site_values

CANARY = "doe-jane-19550312"
RECORDING = """
import itertools, os
import server.superlink.guard as guard
number, original = itertools.count(), guard.PublicDoor.__call__
async def recorded(self, scope, receive, send):
    folder = os.environ["TRAFFIC"]
    name = f"{folder}/{next(number):06d}"
    async def receiving():
        message = await receive()
        with open(name + ".in", "ab") as file:
            file.write(message.get("body", b""))
        return message
    async def sending(message):
        with open(name + ".out", "ab") as file:
            file.write(message.get("body", b""))
        await send(message)
    if scope["type"] == "http":
        with open(name + ".in", "ab") as file:
            file.write(repr((scope["path"], scope["headers"])).encode())
    await original(self, scope, receiving, sending)
guard.PublicDoor.__call__ = recorded
"""
"""For the server's process: each request and answer on the public port as files in $TRAFFIC."""
LEAKY = """
import sys
if any("multiprocessing.forkserver" in part for part in sys.orig_argv):
    import client.app
    from shared_model.errors import RefusedError
    def leaking(config, message, tensors):
        raise RefusedError(f"cannot read {config.data.folder}", "look")
    client.app._respond = leaking
"""
"""A client's sitecustomize: a build that names a file in its refusals."""


def marked(config: SiteConfig, folder: Path) -> dict[str, Any]:
    """The site's data with a patient's name wherever it can stand."""
    place = folder / CANARY
    shutil.copytree(config.data.folder, place / "scans")
    assert config.data.labels is not None
    rows = list(csv.DictReader(config.data.labels.open()))
    for path in sorted((place / "scans").rglob("*.nii.gz")):
        image = nib.load(path)
        image.header["descrip"] = CANARY.encode()
        image.header["aux_file"] = CANARY.encode()
        nib.save(image, path)
    for row in rows:
        case = f"{CANARY}-{row['case']}"
        (place / "scans" / row["case"]).rename(place / "scans" / case)
        for path in (place / "scans" / case).iterdir():
            path.rename(path.with_name(path.name.replace(row["case"], case)))
        row.update({name: value.replace(row["case"], case) for name, value in row.items()} | {"patient": case})
    with (place / f"{CANARY}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data = {"folder": str(place / "scans"), "labels": str(place / f"{CANARY}.csv"), "masks": "regions"}
    return site_values(config, data=data)


def forms(word: str) -> list[bytes]:
    """A word as it may stand in traffic and files."""
    text = word.encode()
    found = [text, text.upper(), word.encode("utf-16-le"), text.hex().encode(), word.replace("-", "^").encode()]
    return found + [base64.b64encode(bytes(shift) + text)[4:-4] for shift in range(3)]


def leaks(*places: Path) -> list[Path]:
    """Files below the places that hold the canary."""
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return [path for path in files if path.is_file() and any(form in path.read_bytes() for form in forms(CANARY))]
