"""Looks for what could name a patient: in NIfTI headers, JSON sidecars, file and folder names.

A finding says where and what kind of thing, never the thing itself. No search finds everything: a first name alone in a
free text looks like any other word, so unusual text in a header is reported as such. Not a substitute for an
anonymisation before data reach the training folder.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib

from client.data.cases import Finding
from client.data.loading import UNREADABLE

HEADER_FIELDS = ("descrip", "aux_file", "db_name", "intent_name")

_PATTERNS = {
    "a person's name": re.compile(r"[^\W\d_]+\^[^\W\d_]+"),
    "a date": re.compile(
        r"(?<!\d)(?:(?:19|20)\d\d([-./_]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
        r"|(?:0?[1-9]|[12]\d|3[01])([-./])(?:0?[1-9]|1[0-2])\2(?:19|20)\d\d"
        r"|(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])/(?:19|20)\d\d)(?!\d)"
    ),
    "a record number": re.compile(
        r"(?:\b|_)(?:mrn|pid|pat(?:ient)?[ _.-]?(?:id|no|nr|num)|acc(?:ession)?|case[ _.-]?no|fall[ _.-]?nr)"
        r"[ _.:#=-]*\d{2,}|(?<![\d.])\d{7,}(?![\d.])",
        re.IGNORECASE,
    ),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),
    "words about a person": re.compile(
        r"\b(?:dob|born|birth|geb|name|surname|patient(?:name)?|mrs?|dr|prof)\b[ .:=]", re.IGNORECASE
    ),
}
_HARMLESS = re.compile(
    r"^(?:FSL ?[\d.]+(?: ?\w+)?|SPM[\w ]*|synthetic|ITK [\d.]+|ANTs[\w. ]*|FreeSurfer[\w. ]*|MNI[\w .]*|"
    r"(?:(?:TE|TI|TR|Time|phase|mb|Freq|FA|sli|GMT)=[\w.\-]*;?)+)$",
    re.IGNORECASE,
)
"""What programs write into `descrip`; anything else there is reported."""

_PERSONAL_KEYS = re.compile(
    r"(patient(?!position|orientation)|birth|accession|physician|operator|institution|station|address|"
    r"otherids|medicalrecord|studydate|seriesdate|acquisitiondate|contentdate|acquisitiondatetime|"
    r"studyid|requestattributes|deviceserial|instanceuid|personname)",
    re.IGNORECASE,
)
"""DICOM attributes in a sidecar that name a person, a place or a day."""
_TOLD_APART = re.compile(r"^(?:|n/?a|none|anon\w*|removed|unknown|0+)$", re.IGNORECASE)

REMEDY_HEADER = "blank the field, e.g. with nibabel or fslmodhd, on a copy"
REMEDY_SIDECAR = "remove the field; training reads no sidecar"
REMEDY_NAME = "rename it to a pseudonym"


def kinds(text: str) -> list[str]:
    """What a text looks like it holds."""
    return [kind for kind, pattern in _PATTERNS.items() if pattern.search(text)]


def scan_header(path: Path) -> list[Finding]:
    """Findings in the header of a NIfTI file; none for a file that cannot be read, which is found elsewhere."""
    try:
        header = nib.load(path).header
        texts = {
            field: bytes(header[field].item()).decode("utf-8", "replace").strip("\0 ")
            for field in HEADER_FIELDS
            if field in header
        }
        extensions = [(extension.get_code(), extension.get_content()) for extension in header.extensions]
    except UNREADABLE:
        return []
    found = []
    for field, text in texts.items():
        if said := kinds(text):
            found.append(Finding("error", str(path), f"header field {field} looks like {said[0]}", REMEDY_HEADER))
        elif text and not (field == "descrip" and _HARMLESS.match(text)):
            found.append(Finding("warning", str(path), f"header field {field} holds text", REMEDY_HEADER))
    for code, content in extensions:
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        said = kinds(text)
        what = f"header extension of code {code} " + (f"looks like {said[0]}" if said else "may hold anything")
        found.append(Finding("error" if said or code == 2 else "warning", str(path), what, "save it without"))
    return found


def scan_sidecar(path: Path) -> list[Finding]:
    """Findings in a JSON file, in whatever depth."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        fields = list(_fields(values, ""))
    except (OSError, UnicodeError, ValueError, RecursionError) as error:
        return [Finding("warning", str(path), f"cannot be read as JSON ({type(error).__name__})", "mend or remove it")]
    found = []
    for place, text in fields:
        if _TOLD_APART.match(text):
            continue
        said = kinds(text)
        if _PERSONAL_KEYS.search(place.rpartition(".")[2]):
            found.append(Finding("error", str(path), f"field {place} names a person, place or day", REMEDY_SIDECAR))
        elif said and said[0] != "a record number":
            found.append(Finding("error", str(path), f"field {place} looks like {said[0]}", REMEDY_SIDECAR))
        elif said:
            found.append(Finding("warning", str(path), f"field {place} looks like {said[0]}", REMEDY_SIDECAR))
    return found


def _fields(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Dotted place and text of every leaf."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner, place)
    elif value is not None:
        yield place, str(value).strip()


def scan_name(path: Path, root: Path) -> list[Finding]:
    """Findings in the names of a file and of its folders below `root`."""
    below = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    found = []
    for depth, part in enumerate(below.parts):
        if said := kinds(part.replace("_", " ")) or kinds(part):
            what = "the file's name" if depth == len(below.parts) - 1 else f"folder {depth + 1} of its path"
            found.append(Finding("warning", str(path), f"{what} looks like {said[0]}", REMEDY_NAME))
    return found


def sidecars(folder: Path) -> list[Path]:
    """JSON files beside images, in one folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json" and path.is_file())
    except OSError:
        return []
