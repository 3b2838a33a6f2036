"""A model on a site's cases: a prediction for each, and sums that add up over sites."""

from collections.abc import Sequence

import numpy as np
import torch

from client.data.loading import Crop, LoadedCase
from shared_model.config import Plan
from shared_model.inference import Prediction, predict_case
from shared_model.network import MTSUNet
from shared_model.scores import CaseResult, SiteScores, case_result
from shared_model.tasks import TASKS


def predict(network: MTSUNet, case: LoadedCase, crop: Crop, tasks: Sequence[str], mirror: bool = False) -> Prediction:
    """Probabilities of a case for those of the network's tasks that are asked for; `crop` is that of training."""
    asked = [task for task in network.tasks if task in tasks]
    return predict_case(
        network,
        torch.from_numpy(case.image[:].astype(np.float32)),  # (4, D, H, W)
        torch.from_numpy(np.array(case.present)),
        crop,
        [task for task in asked if not TASKS[task].is_region],
        regions=[task for task in asked if TASKS[task].is_region],
        mirror=mirror,
    )


def measure(case: LoadedCase, prediction: Prediction) -> CaseResult:
    """How a prediction agrees with what is known of the case."""
    spacing = np.linalg.norm(case.grid.affine[:3, :3], axis=0)  # (3,) mm
    return case_result(case.id, prediction, case.regions[:], case.region_known, case.classes, spacing)


def evaluate(network: MTSUNet, cases: Sequence[LoadedCase], plan: Plan, tasks: Sequence[str]) -> SiteScores:
    """Sums over the site's cases; case ids and single results stay here."""
    return SiteScores.of([measure(case, predict(network, case, plan.training.crop, tasks)) for case in cases])
