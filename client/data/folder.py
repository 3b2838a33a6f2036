"""The case in one folder, without a table: named as in BraTS, as a public data set's own cases, or as in BIDS."""

from pathlib import Path

from client.data.bids import image_file
from client.data.cases import UNKNOWN, Case
from client.data.datasets import dataset, datasets
from client.data.datasets.reader import brain_mask_of, case_folders, first_file, images_of
from client.data.manifest import FOLDER_NAME
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES

BRATS = ("brats-2021", "brats-2023")
"""Names of files that any folder may have, whatever stands before the modality; `prepare` writes the first."""


def read_case_folder(folder: Path) -> Case:
    """The case of a folder, with all of its labels unknown. Its segmentation is named where there is one.

    A folder that is named as the cases of a public data set are is read as that set is, for the sake of its brain masks
    and backgrounds. For BIDS it is the one that holds `anat`.

    Raises:
        DataError: no such folder, a name that no case may have, no modality, or several files for one.
    """
    folder = folder.absolute()
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        raise DataError(f"{folder}: no such folder, or not readable", "name the folder of one case") from None
    if not FOLDER_NAME.fullmatch(folder.name):
        raise DataError(
            f"{folder}: its name is no plain folder name",
            "rename it: letters, digits, dots, dashes and underscores only, the first a letter or digit",
        )
    found = _bids(folder) if "anat" in names else _public(folder) or _brats(folder)
    if found is None or not found.images:
        known = ", ".join(f"{folder.name}_{name}.nii.gz" for name in MODALITIES)
        raise DataError(f"{folder}: none of the four modalities is there", f"name the files {known}")
    return found


def _public(folder: Path) -> Case | None:
    """As the set whose cases are named so, if the folder holds a file of its."""
    for described in datasets().values():
        above, pattern = case_folders(described)
        match = pattern.fullmatch(folder.name)
        if match is None or len(folder.parents) <= len(above):
            continue
        root, name = folder.parents[len(above)], match["case"]
        if images := images_of(described, root, name):
            return Case(
                id=name,
                patient=name,
                images=images,
                mask=first_file(root, described.mask, name),
                labels=UNKNOWN,
                mask_values=described.mask_values,
                brain_mask=brain_mask_of(described, root, name),
                background=described.background,
            )
    return None


def _brats(folder: Path) -> Case | None:
    """By the names of BraTS, of those that most of the files have."""
    cases = []
    for name in BRATS:
        described = dataset(name)
        ends = {m: tuple(Path(path).name for path in paths) for m, paths in described.images.items()}
        images = {m: path for m in MODALITIES if (path := first_file(folder, ends[m], "*")) is not None}
        mask = first_file(folder, tuple(Path(path).name for path in described.mask), "*")
        cases.append(Case(folder.name, folder.name, images, mask, UNKNOWN))
    return max(cases, key=lambda case: len(case.images))


def _bids(folder: Path) -> Case:
    subject = folder.parent.name if folder.name.startswith("ses-") else ""
    name = f"{subject}_{folder.name}" if subject else folder.name
    anat = folder / "anat"
    images = {m: path for m in MODALITIES if (path := image_file(anat, name, m)) is not None}
    return Case(name, subject or name, images, None, UNKNOWN)
