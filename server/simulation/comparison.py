"""Every way of training on the same held-out cases: federated, centralised, each site alone, and their average."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from client.data.cache import CaseCache
from client.data.cases import Case
from client.data.loading import write_segmentation
from client.evaluation import measure, predict
from server.plots import SliceImages, slice_images
from server.simulation.baselines import local_folder
from server.simulation.pool import tick
from server.summary import AVERAGED_LOCAL, CENTRALISED, FEDERATED, local
from shared_model.checkpoint import read_json, read_model, readable, write_json
from shared_model.config import Plan
from shared_model.inference import average, to_brats_labels
from shared_model.network import MTSUNet, build_network
from shared_model.parameters import load_shared
from shared_model.scores import CaseResult, Comparison, compare


@dataclass(frozen=True)
class Model:
    """A trained model to test.

    Attributes:
        way: how reports name the way it was trained.
        folder: of the checkpoint.
        tasks: what it was trained for; its other heads are as they were drawn, and are not asked.
        member: whether the averaged local models count it.
    """

    way: str
    folder: Path
    tasks: tuple[str, ...]
    member: bool = False


@dataclass(frozen=True)
class Test:
    """A test set with the models to run on it.

    Attributes:
        cache, results, segmentations: folders; results hold one JSON per case, and mark it as done.
        shown: cases whose predicted labels are kept as an array too, for the report's pictures.
    """

    plan: Plan
    models: tuple[Model, ...]
    cache: Path
    results: Path
    segmentations: Path
    shown: tuple[str, ...]


def models_of(plan: Plan, federated: Path, baselines: Path | None, sites: dict[str, tuple[str, ...]]) -> list[Model]:
    """The federated model, and with `baselines` (their folder) those too; `sites` maps each to its trained tasks."""
    tasks = tuple(task for task in plan.tasks if any(task in trained for trained in sites.values()))
    models = [Model(FEDERATED, federated, tasks)]
    if baselines is not None:
        models.append(Model(CENTRALISED, baselines / CENTRALISED, tasks))
        models += [Model(local(site), local_folder(baselines, site), trained, True) for site, trained in sites.items()]
    return models


@lru_cache(maxsize=1)
def _networks(test: Test) -> list[MTSUNet]:
    networks = []
    for model in test.models:
        network = build_network(test.plan.model, test.plan.tasks)
        load_shared(network, read_model(model.folder))
        networks.append(network.eval())
    return networks


def run_case(test: Test, case: Case) -> None:
    """Predict one case with every model, write the federated segmentation and then the results."""
    loaded = CaseCache(test.cache).get(case)
    predictions = {
        model.way: predict(network, loaded, test.plan.training.crop, model.tasks)
        for model, network in zip(test.models, _networks(test), strict=True)
    }
    if members := [predictions[model.way] for model in test.models if model.member]:
        predictions[AVERAGED_LOCAL] = average(members)
    labels = to_brats_labels(predictions[FEDERATED].probabilities)
    test.segmentations.mkdir(parents=True, exist_ok=True)
    write_segmentation(loaded, labels, test.segmentations / f"{case.id}_seg.nii.gz")
    if case.id in test.shown:
        test.results.mkdir(parents=True, exist_ok=True)
        np.save(test.results / f"{case.id}.npy", labels, allow_pickle=False)
    results = {way: measure(loaded, prediction).to_json() for way, prediction in predictions.items()}
    write_json(test.results / f"{case.id}.json", results)
    tick()


def done(test: Test, case: Case) -> bool:
    return (test.results / f"{case.id}.json").exists()


def read_results(folder: Path, cases: list[Case]) -> dict[str, list[CaseResult]]:
    """The results of all cases by way of training, in the order of the report."""
    results: dict[str, list[CaseResult]] = {}
    for case in cases:
        path = folder / f"{case.id}.json"
        with readable(path, "remove it, and resume: the case is tested again"):
            for way, values in read_json(path).items():
                results.setdefault(way, []).append(CaseResult.from_json(values))
    order = [FEDERATED, CENTRALISED, AVERAGED_LOCAL]
    return {way: results[way] for way in [*order, *sorted(set(results) - set(order))] if way in results}


def compare_all(results: dict[str, list[CaseResult]], seed: int) -> tuple[Comparison, ...]:
    """The federated model against every other, paired by case."""
    others = [way for way in results if way != FEDERATED]
    return tuple(row for way in others for row in compare(results, FEDERATED, way, seed))


def shown_slices(test: Test, cases: list[Case], synthetic: bool) -> list[SliceImages]:
    """Pictures of the shown cases, truth beside the federated model's prediction."""
    pictures = []
    for case in cases:
        if case.id in test.shown:
            loaded = CaseCache(test.cache).get(case)
            labels = np.load(test.results / f"{case.id}.npy", allow_pickle=False)  # (D, H, W)
            predicted = np.stack([labels > 0, (labels == 1) | (labels == 4), labels == 4]).astype(np.float32)
            x, y, z = (float(edge) for edge in np.linalg.norm(loaded.grid.affine[:3, :3], axis=0))
            image = loaded.image[:].astype(np.float32)
            pictures.append(slice_images(case.id, image, loaded.regions[:], predicted, (x, y, z), synthetic))
    return pictures
