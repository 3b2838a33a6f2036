"""Inference with networks whose answer is known, and once with the real one."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from shared_model.config import ModelConfig
from shared_model.inference import (
    MIRRORINGS,
    Prediction,
    average,
    crop_at,
    nested,
    predict_case,
    to_brats_labels,
    tumour_centre,
)
from shared_model.network import build_network
from shared_model.tasks import REGIONS

CROP = (32, 32, 64)


class Echo(nn.Module):
    """Region logits are channels 0 to 2 of the image; the IDH logit of mutant is the sum of its crop's channel 3."""

    regions = ("wt", "tc", "et")

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout()
        self.modes: list[bool] = []

    def segment(self, images: torch.Tensor, present: torch.Tensor) -> dict[str, torch.Tensor]:
        assert present.shape == (len(images), 4) and tuple(images.shape[2:]) == CROP
        self.modes.append(self.dropout.training)
        return {name: images[:, channel : channel + 1] for channel, name in enumerate(self.regions)}

    def forward(self, images: torch.Tensor, present: torch.Tensor, tasks: tuple[str, ...]) -> dict[str, torch.Tensor]:
        total = images[:, 3].sum(dim=(1, 2, 3))
        return {name: torch.stack([torch.zeros_like(total), total * self.scale], dim=1) for name in tasks}


def blank(*shape: int) -> torch.Tensor:
    image = torch.zeros(4, *shape)
    image[:3] = -5.0
    return image


ALL = torch.ones(4, dtype=torch.bool)


def test_regions_come_back_in_place_and_classes_from_the_tumour() -> None:
    image = blank(40, 50, 90)
    image[0, 30:36, 40:46, 70:76] = 5.0
    image[3, 33, 43, 73] = 2.0  # in the tumour
    image[3, 2, 2, 2] = -50.0  # far from it
    network = Echo().train()
    network.dropout.eval()
    prediction = predict_case(network, image, ALL, CROP, ("idh",))  # type: ignore[arg-type]
    assert prediction.probabilities.shape == (3, 40, 50, 90) and prediction.probabilities.dtype == np.float32
    assert np.allclose(prediction.probabilities, image[:3].sigmoid().numpy(), atol=1e-5)
    assert prediction.classes["idh"][1] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert prediction.regions == ("wt", "tc", "et")
    assert network.training and not network.dropout.training and network.modes[0] is False


def test_an_image_smaller_than_the_crop_is_padded_and_cut_back() -> None:
    image = blank(20, 31, 40)
    image[1, 3:9, 3:9, 3:9] = 4.0
    prediction = predict_case(Echo(), image, ALL, CROP, ())  # type: ignore[arg-type]
    assert np.allclose(prediction.probabilities, image[:3].sigmoid().numpy(), atol=1e-5)
    assert prediction.classes == {}


def test_regions_that_the_model_was_not_trained_for_are_left_out() -> None:
    prediction = predict_case(Echo(), blank(*CROP) + 9, ALL, CROP, (), regions=("wt",))  # type: ignore[arg-type]
    assert prediction.regions == ("wt",)
    assert prediction.probabilities[0].min() > 0.9 and prediction.probabilities[1:].max() == 0


def test_tumour_centre() -> None:
    probability = np.zeros((10, 10, 10))
    probability[7, 1, 3] = 0.4
    assert tumour_centre(probability) == (7, 1, 3)
    probability[2:5, 4, 5] = 0.9
    assert tumour_centre(probability) == (3, 4, 5)


def test_a_crop_stays_in_the_image_and_is_zero_where_that_is_too_small() -> None:
    image = torch.arange(1, 28, dtype=torch.float32).reshape(1, 3, 3, 3)
    box = crop_at(image, (0, 1, 2), (2, 2, 2))  # moved to 0, 0, 1
    assert torch.equal(box[0], image[0, 0:2, 0:2, 1:3])
    assert torch.equal(crop_at(image, (1, 1, 1), (5, 3, 3))[0, 1:4], image[0])


def test_average_is_over_the_members_that_know_the_task() -> None:
    shape = (3, 2, 2, 2)
    both = Prediction(np.full(shape, 0.8, np.float32), {"idh": np.array([0.2, 0.8]), "grade": np.ones(3) / 3})
    whole = np.zeros(shape, np.float32)
    whole[0] = 0.4
    one = Prediction(whole, {"idh": np.array([0.6, 0.4])}, ("wt",))
    mean = average([both, one])
    assert np.allclose(mean.probabilities[0], 0.6) and np.allclose(mean.probabilities[1:], 0.8)
    assert np.allclose(mean.classes["idh"], [0.4, 0.6]) and np.allclose(mean.classes["grade"], 1 / 3)
    assert mean.regions == tuple(region.name for region in REGIONS)
    assert average([one]).regions == ("wt",)


def test_labels_are_nested() -> None:
    # whole, core, enhancing of five voxels in a row
    masks = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]], dtype=np.float32)
    labels = to_brats_labels(masks[:, None, None, :])
    assert labels.dtype == np.uint8 and labels.tolist() == [[[2, 1, 4, 0, 0]]]
    assert nested(masks[:, None, None, :])[:, 0, 0].sum(axis=1).tolist() == [3, 2, 1]


def test_the_real_network_without_a_task_and_a_modality() -> None:
    torch.manual_seed(0)
    network = build_network(ModelConfig(), ("wt", "idh", "grade"))
    present = torch.tensor([True, True, False, True])
    prediction = predict_case(network, torch.randn(4, 40, 30, 64), present, CROP, ("idh", "grade"), overlap=0.25)
    assert prediction.regions == ("wt",)
    assert prediction.probabilities.shape == (3, 40, 30, 64)
    assert {name: len(values) for name, values in prediction.classes.items()} == {"idh": 2, "grade": 3}
    assert prediction.classes["grade"].sum() == pytest.approx(1, abs=1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_mirrored_is_the_mean_of_eight_single_predictions() -> None:
    """On an image of one window the crop of the classes is the image, wherever the tumour is."""
    torch.manual_seed(0)
    network = build_network(ModelConfig(), ("wt", "et", "idh", "grade"))
    image, tasks = torch.randn(4, *CROP), ("idh", "grade")
    mirrored = predict_case(network, image, ALL, CROP, tasks, mirror=True)
    single = []
    for flips in itertools.product((1, -1), repeat=3):
        turn = (slice(None), *(slice(None, None, step) for step in flips))
        found = predict_case(network, torch.from_numpy(image.numpy()[turn].copy()), ALL, CROP, tasks)
        single.append((found.probabilities[turn], found.classes))
    assert len(single) == len(MIRRORINGS) == 8
    assert np.allclose(mirrored.probabilities, np.mean([regions for regions, _ in single], axis=0), atol=1e-6)
    assert np.abs(mirrored.probabilities - single[0][0]).max() > 1e-3
    for task in tasks:
        assert np.allclose(mirrored.classes[task], np.mean([classes[task] for _, classes in single], axis=0), atol=1e-6)
        assert mirrored.classes[task].sum() == pytest.approx(1, abs=1e-5)


def test_windows_together_give_what_they_give_one_by_one() -> None:
    torch.manual_seed(0)
    network = build_network(ModelConfig(), ("wt", "tc", "et"))
    image = torch.randn(4, 40, 70, 64)
    one, three = (predict_case(network, image, ALL, CROP, (), windows=count).probabilities for count in (1, 3))
    assert np.allclose(one, three, atol=1e-5)
