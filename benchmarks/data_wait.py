"""Share of a training step that its loop waits for the next batch.

    python -m benchmarks.data_wait --preset base --size 64 --steps 4 --json

The loop is a site's own (client/training.py) and its crops come from the compressed cache, here of synthetic patients
of 1 mm; batches of two, as in a plan that says nothing else. On CUDA each step is waited for, so that the loop is never
ahead of its device. The first step warms up and does not count. The table goes into docs/benchmarks.md.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import torch

from benchmarks.tables import machine, update_rows
from client import training
from client.data.batches import Batch
from client.data.cache import CaseCache
from client.data.cases import Case
from client.data.loading import LoadedCase
from client.data.phantom.cohort import TEST, Patient, draw_patients, make_case
from shared_model.config import Plan, parse_config
from shared_model.network import build_network

PAGE = Path("docs/benchmarks.md")
HEAD = ("preset", "crop", "on", "batch", "step, s", "waiting, s", "share of a step", "most of any step")
AT_MOST = 0.02
VOXEL_MM = 1.0


def cached(patient: Patient, folder: Path, cache: CaseCache) -> LoadedCase:
    """A synthetic patient's files, read into the cache."""
    images, mask = make_case(patient, VOXEL_MM)
    files = {name: folder / f"{patient.case}_{name}.nii.gz" for name in (*images, "seg")}
    for name, volume in {**images, "seg": mask}.items():
        nib.save(nib.Nifti1Image(volume, np.diag([VOXEL_MM] * 3 + [1.0])), files[name])
    truth = patient.diagnosis
    labels = {"idh": int(truth.mutant), "codeletion": int(truth.codeleted), "grade_who2021": truth.who2021 - 2}
    labels["grade_histologic"] = truth.histologic - 2
    return cache.get(Case(patient.case, patient.case, {name: files[name] for name in images}, files["seg"], labels))


class Waits:
    """A job's batches, and the seconds that each was waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._made = training.training_batches

    def __call__(self, *arguments: Any) -> Generator[Batch, None, None]:
        with closing(self._made(*arguments)) as made:
            while True:
                started = time.perf_counter()
                batch = next(made, None)
                self.seconds.append(time.perf_counter() - started)
                if batch is None:
                    return
                yield batch


def measure(preset: str, size: int, steps: int, patients: int, device: torch.device) -> dict[str, Any]:
    """Median seconds of a step and of its waiting, and the share, of all steps and at most of one."""
    settings = {"local_steps": steps + 1, "crop": [size] * 3}
    values = {"name": "wait", "synthetic": True, "rounds": 1, "model": {"preset": preset}, "training": settings}
    plan = parse_config(Plan, values, "plan")
    waits, ends = Waits(), list[float]()

    def ended() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as name, mock.patch.object(training, "training_batches", waits):
        cache = CaseCache(Path(name) / "cache")
        cases = [cached(patient, Path(name), cache) for patient in draw_patients(TEST, patients, 0)]
        job = training.round_job(plan, plan.tasks, "site", 1, {})
        training.train(build_network(plan.model, plan.tasks), cases, job, device, on_step=ended)
    took = np.diff(ends)  # (steps,)
    waited = np.array(waits.seconds[1 : steps + 1])
    return {
        "preset": preset,
        "size": size,
        "steps": steps,
        "batch": plan.training.batch_size,
        "device": device.type,
        "on": machine(device),
        "step_s": statistics.median(took.tolist()),
        "wait_s": statistics.median(waited.tolist()),
        "share": float(waited.sum() / took.sum()),
        "share_max": float((waited / took).max()),
        "at_most": AT_MOST,
    }


def table_row(row: dict[str, Any]) -> tuple[str, ...]:
    """A measurement under the words of HEAD."""
    seconds = [f"{row[name]:.2g}" for name in ("step_s", "wait_s")]
    shares = [f"{100 * row[name]:.2g} %" for name in ("share", "share_max")]
    return (row["preset"], f"{row['size']} cubed", row["on"], str(row["batch"]), *seconds, *shares)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long a training step waits for its batch.")
    parser.add_argument("--preset", choices=["tiny", "base", "small"], default="base")
    parser.add_argument("--size", type=int, default=64, help="edge of the cubic crop in voxels, a multiple of 32")
    parser.add_argument("--steps", type=int, default=4, help="steps that count")
    parser.add_argument("--patients", type=int, default=4)
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose table is brought up to date")
    given = parser.parse_args()
    row = measure(given.preset, given.size, given.steps, given.patients, given.device)
    update_rows(given.page, "data wait", HEAD, [table_row(row)], key=4)
    print(json.dumps(row, indent=2) if given.json else "\n".join(" | ".join(part) for part in (HEAD, table_row(row))))


if __name__ == "__main__":
    main()
