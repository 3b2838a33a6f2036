"""mtsunet-client predict: as evaluation predicts, in the case's own grid, with its caveats, or one line and no file."""

import gzip
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from client import cli
from client.data.cache import CaseCache
from client.data.reading import read_cases
from client.evaluation import predict
from client.prediction import load_released, predict_folder
from shared_model.checkpoint import MANIFEST, MODEL, encode_tensors, write_json
from shared_model.inference import to_brats_labels
from shared_model.network import build_network
from shared_model.parameters import Tensors, digest, shared_state
from shared_model.tasks import TASKS
from tests.federation import Cohort, small_simulation
from tests.released import RUN, write_released

PLAN = small_simulation().plan
PATIENTS = PLAN.model_copy(update={"synthetic": False})
CASES = dict.fromkeys(TASKS, 8)


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """Drawn weights whose regions' probabilities lie about one half, so that there is something to see."""
    torch.manual_seed(1)
    drawn = shared_state(build_network(PLAN.model, PLAN.tasks))
    return drawn | {f"heads.{name}.bias": np.zeros(1, np.float32) for name in ("wt", "tc", "et")}


@pytest.fixture(scope="module")
def model(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tmp_path_factory.mktemp("models") / RUN, PLAN, tensors, CASES)


@pytest.fixture(scope="module")
def case(cohort: Cohort) -> Path:
    folder = cohort.sites[0].data.folder
    return next(path for path in sorted(folder.iterdir()) if path.is_dir())


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in the working folder `tmp_path`: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def client(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mtsunet-client", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return client


def test_it_is_what_evaluation_predicts(run: Run, cohort: Cohort, model: Path, case: Path, tmp_path: Path) -> None:
    code, out, err = run("--model", model, "--case", case)
    assert (code, err) == (0, "")
    place = tmp_path / "predictions" / case.name
    assert {path.name for path in place.iterdir()} == {"segmentation.nii.gz", "prediction.json", "overlay.png"}
    facts = json.loads((place / "prediction.json").read_text())

    (same,) = [one for one in read_cases(cohort.sites[0].data, PLAN.grade_edition) if one.id == case.name]
    loaded = CaseCache(tmp_path / "cache").get(same)
    expected = predict(load_released(model).network, loaded, PLAN.training.crop, PLAN.tasks)
    for task, values in expected.classes.items():
        told = [facts["probabilities"][task][name] for name in TASKS[task].classes]
        assert told == pytest.approx(values.tolist(), abs=1e-6)
    labels = np.asarray(nib.as_closest_canonical(nib.load(place / "segmentation.nii.gz")).dataobj)
    cut = tuple(slice(a, a + n) for a, n in zip(loaded.grid.start, loaded.image.shape[1:], strict=True))
    assert np.array_equal(labels[cut], to_brats_labels(expected.probabilities))
    assert labels.any() and labels.sum() == labels[cut].sum()

    assert facts["volumes_ml"]["wt"] == pytest.approx((labels > 0).sum() * 0.064)  # voxels of 4 mm
    assert facts["volumes_ml"]["et"] == pytest.approx((labels == 4).sum() * 0.064)
    assert facts["model"]["run"] == RUN and facts["model"]["round"] == 2 and facts["missing"] == []
    assert facts["warnings"] == [] and facts["not_predicted"] == []
    assert "Research only" in out and "Synthetic" in out and "not calibrated" in out
    assert all(line in out for line in facts["caveats"])
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in place.iterdir())
    picture = np.asarray(Image.open(place / "overlay.png"))
    assert picture.shape == (336, 960, 3) and (picture[..., 0] != picture[..., 1]).any()


@pytest.mark.parametrize("axes", [((1, 1), (2, -1), (0, -1)), ((0, -1), (2, 1), (1, 1))])
def test_it_lies_in_the_grid_of_a_turned_case(
    axes: tuple[tuple[int, int], ...], model: Path, case: Path, tmp_path: Path
) -> None:
    """The same voxels in another order, and the affine that says so: the same labels, and the file's own grid."""
    turned = tmp_path / case.name
    turned.mkdir()
    for path in case.glob("*.nii.gz"):
        file = nib.load(path)
        moved = file.as_reoriented(np.array(axes))
        nib.save(moved, turned / path.name)
    first, _ = predict_folder(model, case, tmp_path / "first")
    second, _ = predict_folder(model, turned, tmp_path / "second")
    straight, other = (nib.load(folder / "segmentation.nii.gz") for folder in (first, second))
    image = nib.load(next(turned.glob("*_flair.nii.gz")))
    assert other.shape == image.shape != straight.shape and np.allclose(other.affine, image.affine)
    before, after = (np.asarray(nib.as_closest_canonical(file).dataobj) for file in (straight, other))
    assert np.array_equal(before, after) and before.any()


def test_without_a_modality_without_a_task_and_mirrored(
    tensors: Tensors, model: Path, case: Path, tmp_path: Path
) -> None:
    partial = write_released(tmp_path / "model", PATIENTS, tensors, {"wt": 8, "idh": 4})
    lacking = tmp_path / "lacking"
    shutil.copytree(case, lacking, ignore=shutil.ignore_patterns("*_t1.nii.gz", "*_flair.nii.gz", "*_seg.nii.gz"))
    place, facts = predict_folder(partial, lacking, tmp_path / "out", mirror=True)
    assert facts["present"] == ["t1ce", "t2"] and facts["missing"] == ["t1", "flair"]
    assert facts["not_predicted"] == ["tc", "et", "codeletion", "grade"]
    assert set(facts["volumes_ml"]) == {"wt"} and set(facts["probabilities"]) == {"idh"} and facts["mirrored"]
    assert "Synthetic" not in " ".join(facts["caveats"]) and "Modalities are missing" in " ".join(facts["caveats"])
    assert set(np.unique(np.asarray(nib.load(place / "segmentation.nii.gz").dataobj))) <= {0, 2}


def test_a_model_of_classes_alone_has_no_segmentation(tensors: Tensors, case: Path, tmp_path: Path) -> None:
    classes = write_released(tmp_path / "model", PLAN, tensors, {"grade": 8})
    place, facts = predict_folder(classes, case, tmp_path / "out")
    assert {path.name for path in place.iterdir()} == {"prediction.json", "overlay.png"}
    assert facts["volumes_ml"] == {} and set(facts["probabilities"]) == {"grade"}
    assert any(line.startswith("No tumour was found") for line in facts["caveats"])


def spoil_image(model: Path, case: Path) -> None:
    path = next(case.glob("*_t2.nii.gz"))
    file = nib.load(path)
    volume = np.asarray(file.dataobj, np.float32)
    volume[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(volume, file.affine), path)


def cut_image(model: Path, case: Path) -> None:
    path = next(case.glob("*_t2.nii.gz"))
    path.write_bytes(path.read_bytes()[:2000])


def fill_background(model: Path, case: Path) -> None:
    for path in case.glob("*_t2.nii.gz"):
        file = nib.load(path)
        volume = np.asarray(file.dataobj)
        path.write_bytes(gzip.compress(nib.Nifti1Image(np.where(volume == 0, -7, volume), file.affine).to_bytes()))


def flip_weight(model: Path, case: Path) -> None:
    data = bytearray((model / MODEL).read_bytes())
    data[-1] ^= 1
    (model / MODEL).write_bytes(data)


def other_weights(model: Path, case: Path, value: float = 1.0, agree: bool = False) -> None:
    """Weights that the manifest's sum of bytes fits; that of the tensors only if they `agree`."""
    loaded = shared_state(load_released(model).network) | {"missing_token": np.full(4, value, np.float32)}
    data = encode_tensors(loaded)
    (model / MODEL).write_bytes(data)
    manifest = json.loads((model / MANIFEST).read_text()) | {"sha256": hashlib.sha256(data).hexdigest()}
    write_json(model / MANIFEST, manifest | ({"digest": digest(loaded)} if agree else {}))


def change_about(model: Path, case: Path) -> None:
    manifest = json.loads((model / MANIFEST).read_text())
    manifest["about"]["crop"] = [32, 60, 32]
    write_json(model / MANIFEST, manifest)


def remove_images(model: Path, case: Path) -> None:
    for path in case.iterdir():
        path.unlink()


BAD: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "NaN in an image": (spoil_image, "_t2.nii.gz: holds NaN or infinity"),
    "an image that is cut off": (cut_image, "_t2.nii.gz: no readable NIfTI, or cut off"),
    "no image": (remove_images, "none of the four modalities"),
    "a background": (fill_background, "its background is -7 and not zero"),
    "no case": (lambda model, case: shutil.rmtree(case), "no such folder"),
    "no model": (lambda model, case: shutil.rmtree(model), "manifest.json: cannot be read (FileNotFoundError)"),
    "a flipped bit": (flip_weight, "model.safetensors: is not the file its manifest vouches for"),
    "other weights": (other_weights, "model.safetensors: holds other tensors than its manifest says"),
    "NaN in the weights": (
        lambda model, case: other_weights(model, case, float("nan"), True),
        "'missing_token' holds NaN or infinity",
    ),
    "another crop": (change_about, "about: crop: Value error"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_what_cannot_be_used_is_one_line(kind: str, run: Run, model: Path, case: Path, tmp_path: Path) -> None:
    spoil, said = BAD[kind]
    own_model, own_case = shutil.copytree(model, tmp_path / "model"), shutil.copytree(case, tmp_path / "case")
    spoil(own_model, own_case)
    code, out, err = run("--model", own_model, "--case", own_case)
    assert code == 2 and out == ""
    assert err.startswith("mtsunet-client: ") and said in err and err.count("\n") == 1
    assert not (tmp_path / "predictions").exists()


def test_nothing_is_written_over(run: Run, model: Path, case: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code, _, err = run("--model", model, "--case", case, "--out", tmp_path / "out")
    assert code == 2 and "is here already. Name another folder with --out" in err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_device(run: Run, model: Path, case: Path) -> None:
    code, _, err = run("--model", model, "--case", case, "--device", "cuda")
    assert code == 2 and "no CUDA device is visible" in err
