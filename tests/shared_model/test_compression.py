"""Codecs by hand, their bounds, and that both sides make the same bits."""

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shared_model.compression import CODECS, Change, compressed, through
from shared_model.errors import WireError

CHANGES = {name: codec for name, codec in CODECS.items() if isinstance(codec, Change)}
BEFORE = {"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)}


def test_int8_by_hand() -> None:
    """Rows of their own scale: 127 steps to the largest change, the rest rounded to the nearest of them."""
    value = np.array([[1.27, -0.636, 0.004], [0.0, 0.0, 0.0]], np.float32)
    sent = CODECS["int8"].encode(value, BEFORE["a"])
    raw = zstandard.ZstdDecompressor().decompress(sent.tobytes())
    assert np.frombuffer(raw, "<f4", 2).tolist() == pytest.approx([0.01, 0.0])
    assert np.frombuffer(raw, np.int8, offset=8).tolist() == [127, -64, 0, 0, 0, 0]
    found = CODECS["int8"].decode(sent, BEFORE["a"])
    np.testing.assert_allclose(found, [[1.27, -0.64, 0.0], [0.0, 0.0, 0.0]], rtol=1e-6)


def test_what_is_not_compressed_is_what_it_was() -> None:
    value = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    sent, decoded, lost = through(CODECS["none"], {"a": value}, BEFORE)
    assert sent["a"].tobytes() == decoded["a"].tobytes() == value.tobytes() and lost == 0.0


@pytest.mark.parametrize("name", CHANGES)
class TestEveryChange:
    @given(st.integers(0, 2**32 - 1), st.floats(-8, 3), st.sampled_from([(), (7,), (3, 5), (4, 3, 2, 2, 2)]))
    def test_each_number_is_off_by_half_a_step_at_most(self, name: str, seed: int, power: float, shape: tuple) -> None:
        """A step is 1/127 of the row's largest change, or 2^-11 of the number itself in half precision."""
        rng = np.random.default_rng(seed)
        before = rng.normal(size=shape).astype(np.float32)
        value = (before + 10**power * rng.normal(size=shape)).astype(np.float32)
        codec = CHANGES[name]
        sent, here = codec.both(value, before)
        found = codec.decode(sent, before)
        assert found.tobytes() == here.tobytes() == codec.decode(sent, before.copy(), spend=True).tobytes()
        assert found.dtype == np.float32 and found.shape == shape
        rows = shape[0] if len(shape) > 1 else 1
        largest = np.abs(value - before).reshape(rows, -1).max(axis=1).repeat(value.size // rows).reshape(shape)
        step = largest / 254 if name == "int8" else np.abs(value - before) * 2.0**-11 + largest * 2.0**-25
        rounding = 4e-7 * (np.abs(before) + np.abs(value))
        assert (np.abs(found - value) <= 1.001 * step + rounding).all()

    def test_both_sides_and_a_slow_truth_make_the_same_bits(self, name: str) -> None:
        rng = np.random.default_rng(1)
        before = rng.normal(size=(6, 50)).astype(np.float32)
        value = before + rng.normal(0, 1e-3, size=before.shape).astype(np.float32)
        codec = CHANGES[name]
        sent, decoded, _ = through(codec, {"a": value}, {"a": before})
        assert codec.decode_all(sent, {"a": before})["a"].tobytes() == decoded["a"].tobytes()
        again, lost = compressed(codec, {"a": value}, {"a": before})
        assert again["a"].tobytes() == sent["a"].tobytes() and lost > 0
        raw = zstandard.ZstdDecompressor().decompress(sent["a"].tobytes())
        width = codec.dtype.itemsize
        for row in range(6):
            scale = np.frombuffer(raw, "<f4", 6)[row]
            for column in range(50):
                at = row * 50 + column
                number = np.frombuffer(bytes(raw[24 + byte * 300 + at] for byte in range(width)), codec.dtype)[0]
                assert decoded["a"][row, column] == np.float32(before[row, column] + scale * np.float32(number))

    def test_what_did_not_change_comes_back_and_takes_no_room(self, name: str) -> None:
        before = np.random.default_rng(2).normal(size=(100, 1000)).astype(np.float32)
        sent, decoded, lost = through(CHANGES[name], {"a": before}, {"a": before})
        assert np.array_equal(decoded["a"], before) and lost == 0.0 and sent["a"].nbytes < 200

    def test_the_lost_part_is_that_of_all_tensors_together(self, name: str) -> None:
        rng = np.random.default_rng(3)
        before = {"a": rng.normal(size=(5, 90)).astype(np.float32), "b": rng.normal(size=40).astype(np.float32)}
        values = {key: value + rng.normal(0, 0.1, value.shape).astype(np.float32) for key, value in before.items()}
        _, decoded, lost = through(CHANGES[name], values, before)

        def norm(first: dict, second: dict) -> float:
            return float(np.sqrt(sum(((first[k].astype(float) - second[k]) ** 2).sum() for k in first)))

        assert lost == pytest.approx(norm(decoded, values) / norm(values, before), rel=1e-3)
        assert lost < (0.01 if name == "int8" else 5e-4)

    def test_equal_tensors_are_equal_bytes(self, name: str) -> None:
        value = np.random.default_rng(4).normal(size=(2, 3)).astype(np.float32)
        first, second = (CHANGES[name].encode(value.copy(), BEFORE["a"]).tobytes() for _ in range(2))
        assert first == second

    def test_a_diverged_update_does_not_become_a_finite_one(self, name: str) -> None:
        value = np.array([[np.nan, 1, 2], [np.inf, 1, 2]], np.float32)
        with np.errstate(all="ignore"):
            found = CHANGES[name].decode(CHANGES[name].encode(value, BEFORE["a"]), BEFORE["a"])
        assert not np.isfinite(found[0]).any() and not np.isfinite(found[1]).any()

    @pytest.mark.parametrize(
        "sent",
        [
            np.zeros((2, 3), np.float32),
            np.zeros((2, 3), np.uint8),
            np.zeros(0, np.uint8),
            np.frombuffer(b"no frame at all", np.uint8),
            np.frombuffer(zstandard.compress(bytes(5)), np.uint8),
            np.frombuffer(zstandard.compress(bytes(10**8)), np.uint8),
            np.frombuffer(zstandard.ZstdCompressor(write_content_size=False).compress(bytes(14)), np.uint8),
        ],
        ids=["float32", "two axes", "empty", "no frame", "too short", "bomb", "size not told"],
    )
    def test_what_is_no_frame_of_the_shape_is_refused_by_name(self, name: str, sent: np.ndarray) -> None:
        with pytest.raises(WireError, match="tensor 'a' "):
            CHANGES[name].decode_all({"a": sent}, BEFORE)

    def test_an_unasked_tensor_is_refused(self, name: str) -> None:
        with pytest.raises(WireError, match="tensor 'c' was not asked for"):
            CHANGES[name].decode_all({"c": np.zeros(1, np.uint8)}, BEFORE)
