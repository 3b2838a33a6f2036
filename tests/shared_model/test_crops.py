"""Crops against a slow truth, voxel by voxel."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared_model.crops import crop_slices

AXIS = st.tuples(st.integers(-5, 30), st.integers(1, 20), st.integers(1, 20))


@given(st.tuples(AXIS, AXIS, AXIS))
def test_a_crop_is_the_volume_shifted(axes: tuple[tuple[int, int, int], ...]) -> None:
    centre, size, crop = zip(*axes, strict=True)
    volume = np.arange(1, np.prod(size) + 1).reshape(size)
    out = np.zeros(crop, int)
    source, target = crop_slices(centre, size, crop)
    out[target] = volume[source]
    for axis, (middle, length, width) in enumerate(axes):
        inside = np.flatnonzero(out.any(axis=tuple(other for other in range(3) if other != axis)))
        assert len(inside) == min(length, width)
        assert (np.diff(inside) == 1).all()
        if width <= length and 0 <= middle - width // 2 <= length - width:
            assert source[axis].start == middle - width // 2
        if width >= length:
            assert inside[0] == -((length - width) // 2)


def test_by_hand() -> None:
    assert crop_slices((0, 5, 9), (10, 10, 10), (4, 4, 4)) == (
        (slice(0, 4), slice(3, 7), slice(6, 10)),
        (slice(0, 4), slice(0, 4), slice(0, 4)),
    )
    assert crop_slices((1, 1, 1), (3, 3, 3), (5, 3, 2)) == (
        (slice(0, 3), slice(0, 3), slice(0, 2)),
        (slice(1, 4), slice(0, 3), slice(0, 2)),
    )
