"""One case under a released model: what it finds, in the case's own grid, and what that is not."""

from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.data.cases import Case
from client.data.checks import look_inside
from client.data.folder import read_case_folder
from client.data.loading import LoadedCase, assemble, files_of, read_volume, triple, write_segmentation
from client.data.sheet import write_overlay
from client.evaluation import predict
from shared_model.checkpoint import MANIFEST, MODEL, commit_folder, read_model, remove_folder, write_json
from shared_model.errors import ConfigError, RunError, WeightsError
from shared_model.inference import REGION_NAMES, Prediction, nested, to_brats_labels, tumour_centre
from shared_model.network import MTSUNet, build_network
from shared_model.parameters import digest, load_shared
from shared_model.released import About, Released, about_of, parse_released
from shared_model.tasks import MODALITIES, TASKS

SEGMENTATION, FACTS, OVERLAY = "segmentation.nii.gz", "prediction.json", "overlay.png"
DAMAGED = "fetch it anew: mtsunet-client models --get RUN"


@dataclass(frozen=True)
class Model:
    """A released model, ready to be asked.

    Attributes:
        tasks: what it was trained for; its other heads are as they were drawn, and are not asked.
    """

    network: MTSUNet
    released: Released
    about: About
    tasks: tuple[str, ...]


def load_released(folder: Path) -> Model:
    """The model of a folder as `models --get` writes it. Who signed it was looked at there, and is not here.

    Raises:
        WeightsError: a file is missing, damaged, or not what the manifest says.
    """
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except OSError as error:
        what = f"{folder / MANIFEST}: cannot be read ({type(error).__name__})"
        raise WeightsError(what, "name a model's folder, as mtsunet-client models --get writes it") from None
    released = parse_released(manifest, str(folder / MANIFEST))
    about = about_of(released, str(folder / MANIFEST))
    tensors = read_model(folder)
    if digest(tensors) != released.digest:
        raise WeightsError(f"{folder / MODEL}: holds other tensors than its manifest says", DAMAGED)
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsError(f"{folder / MODEL}: '{name}' holds NaN or infinity", "use another model")
    network = build_network(about.model, about.tasks)
    load_shared(network, tensors)
    return Model(network, released, about, tuple(task for task in about.tasks if released.cases.get(task)))


def predict_folder(
    model: Path, case: Path, out: Path | None = None, mirror: bool = False, device: str = "cpu"
) -> tuple[Path, dict[str, Any]]:
    """Predict one case into a new folder, all of its files or none.

    Args:
        model: folder of a released model.
        case: folder of the case's files.
        out: the new folder; predictions/CASE in the working folder if left out.
        mirror: also predict the mirrored images, and take the mean.

    Returns:
        The folder, and what prediction.json in it holds.

    Raises:
        ConfigError: the new folder is there already, or the device is not.
        DataError: the case cannot be used.
        WeightsError: the model cannot be used.
        RunError: the device's memory is too small.
    """
    found = read_case_folder(case)
    place = out or Path("predictions") / found.id
    if place.exists():
        raise ConfigError(f"{place}: is here already", "name another folder with --out, or remove it first")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device: no CUDA device is visible", "install a CUDA build of torch, or say --device cpu")
    asked = load_released(model)
    loaded, warnings = _load(found)
    try:
        prediction = predict(asked.network.to(device), loaded, asked.about.crop, asked.tasks, mirror)
    except torch.OutOfMemoryError:
        raise RunError(f"--device: the memory of {device} is too small", "free some, or say --device cpu") from None
    if not all(np.isfinite(values).all() for values in (prediction.probabilities, *prediction.classes.values())):
        raise WeightsError(f"{model}: its numbers overflow on this case", "use another model")
    facts = _facts(asked, loaded, prediction, mirror, warnings)
    part = place.with_name(f".{place.name}.part")
    remove_folder(part)
    part.mkdir(parents=True)
    _write(part, loaded, prediction, facts)
    commit_folder(part, place)
    return place, facts


def _load(case: Case) -> tuple[LoadedCase, list[str]]:
    """The case as in training, but for its segmentation; and what about it is doubtful, without a path."""
    case = replace(case, mask=None)
    files = {name: read_volume(path) for name, path in files_of(case).items()}
    loaded = assemble(case, files)
    findings = look_inside(case, files, loaded)
    for finding in findings:
        if finding.severity == "error":
            raise finding.error()
    return loaded, [f"{Path(finding.where).name}: {finding.what}" for finding in findings]


def _write(folder: Path, loaded: LoadedCase, prediction: Prediction, facts: dict[str, Any]) -> None:
    regions = nested(prediction.probabilities)
    if REGION_NAMES[0] in prediction.regions:
        write_segmentation(loaded, to_brats_labels(prediction.probabilities), folder / SEGMENTATION)
        at = tumour_centre(prediction.probabilities[0])
    else:
        at = triple(np.array(loaded.image.shape[1:]) // 2)
    kind = "synthetic model; " if facts["model"]["synthetic"] else ""
    write_overlay(loaded, regions, at, f"{loaded.id}; {kind}research only, not for clinical use", folder / OVERLAY)
    write_json(folder / FACTS, facts)


def _facts(
    model: Model, loaded: LoadedCase, prediction: Prediction, mirror: bool, warnings: list[str]
) -> dict[str, Any]:
    """prediction.json."""
    edges = np.linalg.norm(loaded.grid.affine[:3, :3], axis=0)  # (3,) mm
    voxels = nested(prediction.probabilities).sum(axis=(1, 2, 3))  # (3,)
    told = tuple(takewhile(lambda name: name in prediction.regions, REGION_NAMES))
    there = dict(zip(MODALITIES, loaded.present.tolist(), strict=True))
    return {
        "case": loaded.id,
        "model": {
            "run": model.released.run,
            "round": model.released.round,
            "digest": model.released.digest,
            "release": model.released.release,
            "plan": model.about.plan,
            "synthetic": model.about.synthetic,
        },
        "present": [name for name in MODALITIES if there[name]],
        "missing": [name for name in MODALITIES if not there[name]],
        "voxel_mm": [round(float(edge), 4) for edge in edges],
        "mirrored": mirror,
        "volumes_ml": {
            name: round(float(count * edges.prod() / 1000), 3)
            for name, count in zip(REGION_NAMES, voxels, strict=True)
            if name in told
        },
        "probabilities": {
            task: dict(zip(TASKS[task].classes, map(float, values), strict=True))
            for task, values in prediction.classes.items()
        },
        "grade_edition": model.about.grade_edition,
        "not_predicted": [task for task in TASKS if task not in (*told, *prediction.classes)],
        "warnings": warnings,
        "caveats": _caveats(model, loaded, prediction),
    }


def _caveats(model: Model, loaded: LoadedCase, prediction: Prediction) -> list[str]:
    lines = [
        "Research only: this is not a medical device, and not for clinical use.",
        "Probabilities are not calibrated.",
        "The model wants images as it was trained on: one grid, brains extracted; see card.md beside it.",
    ]
    if model.about.synthetic:
        lines.insert(0, "Synthetic: the model was trained on generated cases alone, and says nothing about patients.")
    if not loaded.present.all():
        lines.append("Modalities are missing, and errors are likelier without them.")
    if prediction.classes and not (prediction.probabilities[0] > 0.5).any():
        lines.append("No tumour was found: the classes are those of the likeliest place, and mean little.")
    return lines


def in_words(facts: dict[str, Any]) -> list[str]:
    """prediction.json in a few lines."""
    lines = [f"{TASKS[region].title}: {volume:g} ml" for region, volume in facts["volumes_ml"].items()]
    for task, chances in facts["probabilities"].items():
        lines.append(f"{TASKS[task].title}: " + ", ".join(f"{name} {chance:.3f}" for name, chance in chances.items()))
    titles = [TASKS[task].title for task in facts["not_predicted"]]
    lines += (
        [f"not predicted, as the model was not trained for it or what is around it: {', '.join(titles)}"]
        if titles
        else []
    )
    lines += [f"missing: {', '.join(facts['missing'])}"] if facts["missing"] else []
    return [*lines, *(f"warning: {line}" for line in facts["warnings"]), *facts["caveats"]]
