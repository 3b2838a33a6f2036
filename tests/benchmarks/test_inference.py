"""The measurement itself, on a case of a few voxels: what is compared is the same."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.inference import drift, drift_table, measure, moved, resampled, table, uncut
from client.data.folder import read_case_folder
from client.data.loading import load_case
from shared_model.network import build_network
from shared_model.parameters import shared_state
from tests.federation import Cohort, small_simulation
from tests.released import write_released

PLAN = small_simulation().plan
VOXEL_MM = 4.0


def test_a_small_case(cohort: Cohort, tmp_path: Path) -> None:
    folder = next(path for path in sorted(cohort.sites[0].data.folder.iterdir()) if path.is_dir())
    case = load_case(read_case_folder(folder))
    full = uncut(case)
    assert full.image.shape[1:] == full.regions.shape[1:] == case.grid.shape
    assert np.count_nonzero(full.image[:]) == np.count_nonzero(case.image[:])
    assert full.regions[:].sum() == case.regions[:].sum() > 0
    behind = moved(case, (1, 2, 3))
    assert behind.image.shape[1:] == tuple(np.add(full.image.shape[1:], (1, 2, 3)))
    assert np.array_equal(behind.image[:, 1:, 2:, 3:], full.image[:])
    assert np.array_equal(behind.regions[:, 1:, 2:, 3:], full.regions[:])
    coarse = uncut(load_case(read_case_folder(resampled(folder, 2 * VOXEL_MM, tmp_path))))
    assert np.allclose(coarse.image.shape[1:], np.divide(full.image.shape[1:], 2), atol=1)
    assert 0.5 < coarse.regions[0].sum() * 8 / full.regions[0].sum() < 2  # of the same millilitres
    torch.manual_seed(0)
    network = build_network(PLAN.model, PLAN.tasks)
    weights = shared_state(network) | {f"heads.{name}.bias": np.zeros(1, np.float32) for name in ("wt", "tc", "et")}

    row = measure(case, network, PLAN.training.crop, "cpu", 1)
    assert row["difference"] <= 1e-6 and row["ours_s"] > 0 and row["stock_s"] > 0
    assert table(row).count("| tiny |") == 1

    found = drift(write_released(tmp_path / "model", PLAN, weights, dict.fromkeys(PLAN.tasks, 8)), [folder], "cpu")
    assert [one["region"] for one in found["cases"]] == ["wt", "tc", "et"]
    assert found["greatest"] == max(abs(one["ours"] - one["full"]) for one in found["cases"])
    assert found["greatest_own"] == max(abs(one["moved"] - one["full"]) for one in found["cases"])
    assert drift_table(found).count(case.id) == 3 and drift_table(found).count("| mean") == 6
