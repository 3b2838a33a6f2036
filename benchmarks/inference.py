"""A whole prediction of one case against full-volume sliding windows of a stock SwinUNETR, and what cutting costs.

    python -m benchmarks.inference [CASE_FOLDER] --preset base --json inference.json
    python -m benchmarks.inference --drift MODEL_FOLDER [--voxel-mm 3.5] CASE_FOLDER ...

Ours is what `mtsunet-client predict` does once the case is read: windows over the brain's box alone, and the class
heads at the tumour. The reference is MONAI's `sliding_window_inference` over the full volume. Both have the same
window, overlap 0.5 and Gaussian weights, and z-scored images in memory. CASE_FOLDER is read as `predict` reads it;
without one a synthetic case of 240x240x155 voxels is made, whose brain has the size of a BraTS case's.

`--drift` has a model, released or made by `mtsunet-simulate`, and labelled cases; it compares the Dice of its
prediction with that of the same network over the full volume. Beside it stands the reference's own drift: the Dice over
the full volume with empty voxels before it, half a step of the windows on each axis, less that without them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import SwinUNETR
from nibabel.processing import resample_to_output
from torch import nn

from benchmarks.tables import replace_table
from client.data.folder import read_case_folder
from client.data.loading import Crop, LoadedCase, load_case, triple
from client.data.phantom.cohort import TEST, draw_patients, make_case
from client.evaluation import predict
from client.prediction import load_released
from shared_model.checkpoint import read_manifest, read_model
from shared_model.config import ModelConfig
from shared_model.crops import crop_slices
from shared_model.inference import REGION_NAMES
from shared_model.metrics import dice
from shared_model.network import MTSUNet, backbone_shape, build_network
from shared_model.parameters import load_shared
from shared_model.released import About
from shared_model.tasks import MODALITIES, REGIONS, TASKS

PAGE = Path("docs/benchmarks.md")
SHAPE = (240, 240, 155)
OVERLAP = 0.5
PHANTOM_MM = 1.15
"""Voxel of a phantom before it is laid on the grid of 1 mm: the template's brain is larger than most, and so it fills
as many voxels as that of a BraTS case, about 140x170x140."""
FASTER, DIFFERENCE, DRIFT = 3.0, 1e-4, 0.005
Result = TypeVar("Result")
Predictor = Callable[[torch.Tensor], torch.Tensor]


def synthetic_case(folder: Path) -> Path:
    """A phantom on BraTS's grid of 1 mm, in a folder of its own."""
    images, mask = make_case(draw_patients(TEST, 1, 0)[0], PHANTOM_MM)
    place = folder / "synthetic"
    place.mkdir()
    for name, volume in (*images.items(), ("seg", mask)):
        source, target = crop_slices(np.array(volume.shape) / 2, volume.shape, SHAPE)
        placed = np.zeros(SHAPE, volume.dtype)
        placed[target] = volume[source]
        nib.save(nib.Nifti1Image(placed, np.eye(4)), place / f"synthetic_{name}.nii.gz")
    return place


def resampled(case: Path, voxel_mm: float, folder: Path) -> Path:
    """A case on voxels of another size, in a folder of its own: those that a model was trained with."""
    place = folder / case.name
    place.mkdir()
    for file in case.glob("*.nii*"):
        volume = nib.load(file)
        order = 0 if "seg" in file.name else 1
        nib.save(resample_to_output(volume, voxel_mm, order=order), place / file.name)
    return place


def uncut(case: LoadedCase) -> LoadedCase:
    """The case on its whole grid, z-scored as it is."""
    grid = case.grid

    def placed(volume: np.ndarray) -> np.ndarray:
        whole = np.zeros((len(volume), *grid.shape), volume.dtype)
        at = (slice(start, start + size) for start, size in zip(grid.start, volume.shape[1:], strict=True))
        whole[:, *at] = volume
        return whole

    centre = triple(np.add(grid.start, case.centre))
    return replace(
        case,
        image=placed(case.image[:]),
        regions=placed(case.regions[:]),
        centre=centre,
        grid=replace(grid, start=(0, 0, 0)),
    )


def moved(case: LoadedCase, voxels: tuple[int, int, int]) -> LoadedCase:
    """The whole case behind so many empty voxels on each axis: the same volume under windows that lie elsewhere."""
    whole = uncut(case)
    before = [(0, 0), *((count, 0) for count in voxels)]
    return replace(
        whole,
        image=np.pad(whole.image[:], before),
        regions=np.pad(whole.regions[:], before),
        centre=triple(np.add(whole.centre, voxels)),
    )


def stock_network(preset: str) -> nn.Module:
    """MONAI's SwinUNETR of a preset's size with three outputs."""
    shape = backbone_shape(preset)
    network: nn.Module = SwinUNETR(
        in_channels=len(MODALITIES),
        out_channels=len(REGIONS),
        feature_size=shape.feature_size,
        depths=shape.depths,
        num_heads=shape.heads,
        window_size=shape.window,
    )
    return network.eval()


@torch.no_grad()
def reference(case: LoadedCase, predictor: Predictor, crop: Crop, device: str) -> np.ndarray:
    """MONAI's windows over all of the case's image, one at a time: (C, D, H, W) probabilities."""
    image = torch.from_numpy(case.image[:].astype(np.float32))[None]
    windows: torch.Tensor = sliding_window_inference(
        image,
        crop,
        1,
        lambda boxes: predictor(boxes).sigmoid(),
        OVERLAP,
        mode="gaussian",
        sw_device=device,
        device="cpu",
    )
    return windows[0].numpy()


def of_network(network: MTSUNet, case: LoadedCase) -> Predictor:
    """Region logits of our network, for `reference`."""
    present = torch.from_numpy(case.present)[None].to(next(network.parameters()).device)

    def logits(boxes: torch.Tensor) -> torch.Tensor:
        found = network.segment(boxes, present.expand(len(boxes), -1))
        return torch.cat([found[name] for name in network.regions], dim=1)

    return logits


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def measure(case: LoadedCase, network: MTSUNet, crop: Crop, device: str, repeats: int) -> dict[str, Any]:
    """Seconds of either, the ratio, and the greatest difference from MONAI's windows of our network."""
    full = uncut(case)
    network.eval().to(device)
    stock = stock_network(network.config.preset).to(device)
    with torch.no_grad():
        box = torch.zeros(1, len(MODALITIES), *crop, device=device)
        of_network(network, case)(box), stock(box)
    rows = []
    for _ in range(repeats):
        ours, prediction = timed(lambda: predict(network, case, crop, network.tasks))
        theirs, _ = timed(lambda: reference(full, stock, crop, device))
        rows.append((ours, theirs))
    expected = reference(case, of_network(network, case), crop, device)  # (regions, D, H, W)
    found = prediction.probabilities[[REGION_NAMES.index(name) for name in network.regions]]
    ours_s, stock_s = (float(np.median(column)) for column in zip(*rows, strict=True))
    return {
        "preset": network.config.preset,
        "case": case.id,
        "crop": list(crop),
        "shape": list(case.grid.shape),
        "box": list(case.image.shape[1:]),
        "device": device,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "ours_s": ours_s,
        "stock_s": stock_s,
        "faster": float(np.median([theirs / ours for ours, theirs in rows])),
        "difference": float(np.abs(found - expected).max()),
    }


def drift(model: Path, folders: list[Path], device: str) -> dict[str, Any]:
    """For each case and region that is known, Dice of ours and of the same network over the full volume."""
    about = About.model_validate(read_manifest(model)["about"])
    network = build_network(about.model, about.tasks)
    load_shared(network, read_model(model))
    network.to(device)
    rows: list[dict[str, Any]] = []
    for folder in folders:
        case = load_case(read_case_folder(folder))
        first, second, third = (round(size * (1 - OVERLAP) / 2) for size in about.crop)
        cases = {"ours": case, "full": uncut(case), "moved": moved(case, (first, second, third))}
        found = {way: predict(network, one, about.crop, about.tasks) for way, one in cases.items()}
        for index, region in enumerate(REGIONS):
            if case.region_known[index] and region.name in found["ours"].regions:
                row = {way: dice(found[way].probabilities[index] > 0.5, cases[way].regions[index]) for way in cases}
                drifts = {"drift": row["ours"] - row["full"], "own": row["moved"] - row["full"]}
                rows.append({"case": case.id, "region": region.name, **row, **drifts})
    if not rows:
        raise SystemExit("no case has a segmentation of what the model knows")
    greatest = {way: max(abs(row[way]) for row in rows) for way in ("drift", "own")}
    return {"cases": rows, "greatest": greatest["drift"], "greatest_own": greatest["own"]}


def _verdict(good: bool) -> str:
    return "yes" if good else "NO"


def table(row: dict[str, Any]) -> str:
    """The measurement for docs/benchmarks.md."""
    crop, shape, box = ("x".join(map(str, row[key])) for key in ("crop", "shape", "box"))
    return "\n".join(
        [
            f"{row['case']}, {shape} voxels, brain in {box}; window {crop}, overlap {OVERLAP:g}, {row['device']}, "
            f"{row['threads']} threads, median of {row['repeats']}.",
            "",
            "| preset | ours with class heads, s | stock SwinUNETR, full volume, s | faster | greatest difference |",
            "|---|---|---|---|---|",
            f"| {row['preset']} | {row['ours_s']:.2f} | {row['stock_s']:.2f} | {row['faster']:.2f} times "
            f"| {row['difference']:.1e} |",
        ]
    )


def drift_table(found: dict[str, Any]) -> str:
    lines = ["| case | region | ours | full volume | drift | the full volume's own |", "|---|---|---|---|---|---|"]
    for row in found["cases"]:
        values = f"{row['ours']:.4f} | {row['full']:.4f} | {row['drift']:+.4f} | {row['own']:+.4f}"
        lines.append(f"| {row['case']} | {row['region']} | {values} |")
    for name, of in (("mean", np.mean), ("mean without sign", lambda values: np.mean(np.abs(values)))):
        for region in dict.fromkeys(row["region"] for row in found["cases"]):
            rows = [row for row in found["cases"] if row["region"] == region]
            drifts = (of([row[way] for row in rows]) for way in ("drift", "own"))
            lines.append(f"| {name} | {region} | | | {' | '.join(format(value, '+.4f') for value in drifts)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a prediction against full-volume windows of a stock SwinUNETR.")
    parser.add_argument("case", type=Path, nargs="*", help="folder of a case; with --drift of labelled cases")
    parser.add_argument("--preset", choices=["tiny", "base", "small"], default="base", help="with random weights")
    parser.add_argument("--model", type=Path, help="a released model in the place of random weights")
    parser.add_argument("--crop", type=int, nargs=3, default=[96, 96, 96], help="the window without --model")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--drift", type=Path, metavar="MODEL_FOLDER", help="compare Dice in the place of time")
    parser.add_argument("--voxel-mm", type=float, help="with --drift: bring the cases to voxels of this size first")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args()
    if given.drift:
        with tempfile.TemporaryDirectory() as name:
            folders = given.case
            if given.voxel_mm:
                folders = [resampled(folder, given.voxel_mm, Path(name)) for folder in folders]
            found = drift(given.drift, folders, given.device)
        print(text := drift_table(found))
        replace_table(PAGE, "drift", text)
        print(f"greatest drift {found['greatest']:.4f}, at most {DRIFT:g}: {_verdict(found['greatest'] <= DRIFT)}")
        print(f"the full volume's own, with windows elsewhere: {found['greatest_own']:.4f}")
    else:
        found = _timing(given)
        print(table(found))
        print(f"faster {found['faster']:.2f} times, at least {FASTER:g}: {_verdict(found['faster'] >= FASTER)}")
        print(f"difference at most {DIFFERENCE:g}: {_verdict(found['difference'] <= DIFFERENCE)}")
        replace_table(PAGE, "inference", table(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def _timing(given: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    network, crop = build_network(ModelConfig(preset=given.preset), tuple(TASKS)), tuple(given.crop)
    if given.model:
        asked = load_released(given.model)
        network, crop = asked.network, asked.about.crop
    with tempfile.TemporaryDirectory() as name:
        folder = given.case[0] if given.case else synthetic_case(Path(name))
        case = load_case(replace(read_case_folder(folder), mask=None))
    return measure(case, network, crop, given.device, given.repeats)


if __name__ == "__main__":
    main()
