"""What can be read off an update without noise is read exactly, and measures of likeness are what they say."""

import pytest
import torch

from benchmarks import attack_image, attack_inversion
from benchmarks.attack_data import CROP
from benchmarks.attack_image import (
    CROSS,
    SOUGHT,
    Gradient,
    Quality,
    class_loss,
    correlation,
    match,
    quality,
    total_variation,
)
from benchmarks.attack_inversion import (
    CLIP,
    UNCLIPPED,
    Inversion,
    Scene,
    expected,
    features_of,
    flat,
    loss_of,
    pick,
    read_features,
    read_labels,
    scene,
    table,
    unseen,
    update_of,
)


@pytest.fixture(scope="module")
def view() -> Scene:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attack_inversion, "CANDIDATES", 3)
        return scene()


@pytest.fixture(scope="module")
def updates(view: Scene) -> list[Gradient]:
    return [update_of(view.network, batch, 0.0, UNCLIPPED) for batch in view.batches]


def test_a_plain_update_is_the_gradient(view: Scene, updates: list[Gradient]) -> None:
    batch = view.batches[0]
    own = dict(view.network.named_parameters())
    found = torch.autograd.grad(
        loss_of(view.network, batch.images, batch), list(own.values()), allow_unused=True, materialize_grads=True
    )
    assert correlation(flat(updates[0]), flat(dict(zip(own, found, strict=True)))) == pytest.approx(1, abs=1e-5)
    assert float(flat(updates[0]).norm()) == pytest.approx(float(flat(dict(zip(own, found, strict=True))).norm()), 1e-4)


def test_labels_features_and_patient_are_read_off_a_plain_update(view: Scene, updates: list[Gradient]) -> None:
    known = torch.stack([flat(update) for update in updates])
    for index, (batch, update) in enumerate(zip(view.batches, updates, strict=True)):
        assert read_labels(update) == batch.targets.classes[0].tolist()
        torch.testing.assert_close(read_features(update), features_of(view.network, batch), rtol=1e-3, atol=1e-3)
        assert pick(flat(update), known) == index


def test_a_private_update_is_clipped_and_drowned(view: Scene) -> None:
    quiet = update_of(view.network, view.batches[0], 0.0, CLIP)
    assert float(flat(quiet).norm()) == pytest.approx(CLIP, rel=1e-3)
    noisy = update_of(view.network, view.batches[0], 2.0, CLIP)
    weights = len(flat(noisy))
    assert float(flat(noisy).norm()) == pytest.approx(2.0 * weights**0.5, rel=0.01)
    assert abs(correlation(read_features(noisy), view.features[0])) < 0.3
    assert float(flat(noisy) @ flat(quiet)) == pytest.approx(1, abs=12)  # signal 1, deviation 2


def test_a_step_over_nobody_is_noise_alone(view: Scene) -> None:
    assert float(flat(update_of(view.network, None, 0.0, CLIP)).norm()) == 0
    noisy = flat(update_of(view.network, None, 0.5, CLIP))
    assert float(noisy.norm()) == pytest.approx(0.5 * len(noisy) ** 0.5, rel=0.01)


def test_the_gradient_of_the_class_side_needs_no_other_part(view: Scene, updates: list[Gradient]) -> None:
    batch, cross = view.batches[1], view.network.cross_modality
    assert cross is not None
    vector = view.features[1][None, : -cross.width]
    names = [name for name, _ in cross.named_parameters() if name != "absent"]
    loss = class_loss(view.network, batch.images[:, SOUGHT], vector, batch)
    for name, found in zip(
        names, torch.autograd.grad(loss, [cross.get_parameter(name) for name in names]), strict=True
    ):
        wanted = updates[1][CROSS + name]
        assert float((found - wanted).norm()) < 1e-4 * float(wanted.norm()), name


def test_matching_finds_something_of_the_image(
    view: Scene, updates: list[Gradient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack_image, "ITERATIONS", 100)
    batch, start = view.batches[0], expected(view.batches, 0)
    inside, truth = batch.tumor_mask > 0, batch.images[:, SOUGHT]
    found = match(view.network, batch, updates[0], view.features[0], start)
    assert found.shape == (1, 2, *CROP)
    assert quality(start, truth, inside).correlation == pytest.approx(0, abs=1e-6)
    assert quality(found, truth, inside).correlation > 0.1


def test_likeness_is_what_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 2, 10, 10, 10, generator=generator)
    truth[0, 1] = truth[0, 0]
    inside = torch.zeros(1, 1, 10, 10, 10, dtype=torch.bool)
    inside[..., 2:8] = True
    same = quality(truth, truth, inside)
    assert same.psnr == float("inf") and same.ssim == pytest.approx(1) and same.correlation == pytest.approx(1)
    there = truth[0, 0][inside[0, 0]]
    spoiled = truth + float(there.max() - there.min()) / 10
    spoiled[..., :2] = 99  # outside, and more than half a window away from most of it
    moved = quality(spoiled, truth, inside)
    assert moved.psnr == pytest.approx(20, abs=1e-3) and moved.correlation == pytest.approx(1)
    turned = quality(1 - truth, truth, inside)
    assert turned.correlation == pytest.approx(-1) and turned.ssim < 0
    assert quality(torch.ones_like(truth), truth, inside).correlation == 0
    assert correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 3.0])) == pytest.approx(0.5)
    assert float(total_variation(torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 2))) == pytest.approx(1)


def test_the_row_without_an_update_is_the_other_patients(view: Scene) -> None:
    image = expected(view.batches, 0)
    others = torch.cat([batch.images[:, 2:] for batch in view.batches[1:]])
    masks = torch.cat([batch.tumor_mask for batch in view.batches[1:]])[:, 0] > 0
    inside = view.batches[0].tumor_mask[0, 0] > 0
    assert image[0, 0][inside].unique().tolist() == pytest.approx([float(others[:, 0][masks].mean())])
    assert image[0, 1][~inside].unique().tolist() == pytest.approx([float(others[:, 1][~masks].mean())])
    row = unseen(view)
    assert row.image.correlation == pytest.approx(0, abs=1e-6)
    assert 1 / 3 < row.labels <= 1


def test_the_table_has_a_row_for_each_step() -> None:
    row = Inversion("epsilon 8", 8.0, 0.6, 0.5, 0.01, 0.25, 0.75, Quality(12.345, 0.1, 0.2))
    assert table([row]).splitlines()[-1] == "| epsilon 8 | 0.60 | 0.50 | 0.01 | 0.25 | 0.75 | 0.20 | 0.10 | 12.3 |"
    assert "synthetic" in table([row])
