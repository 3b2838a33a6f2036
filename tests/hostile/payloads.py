"""Payloads that hardly an honest sender makes: chance bytes, and valid bytes after no edit or a few.

Texts are edited token by token, so that most stay JSON and reach the schema behind the parser.
"""

import json
import re
import struct
from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

DEEP = 10_000
"""Levels of nesting, beyond what the interpreter allows a recursion, and more than Hypothesis makes it allow."""
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.+-]+|[{}\[\],:]')
NUMBERS = (
    *("0", "-1", "0.5", "1e999", "-1e999", "1e308", "1e-400", "NaN", "-Infinity", "2147483648", "9223372036854775808"),
    *("18446744073709551615", "9" * 30, "-" + "9" * 400, "9" * 4299, "9" * 5000),
)
STRINGS = tuple(
    json.dumps(text)
    for text in ("", "x" * 5000, "../../etc/passwd", "/etc/passwd", "a\0b", "a\n", "\ud800", "\u202e", "é" * 50, "nan")
)
OTHERS = ("null", "true", "false", "[]", "{}", "[[],[]]", '{"":0}', '{"a":1,"a":2}', "," * 3, ":")
NESTED = ("[" * DEEP, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP, '[{"":' * DEEP + "0" + "}]" * DEEP)
TOKENS = (*NUMBERS, *STRINGS, *OTHERS, *NESTED)

Edit = tuple[str, int, object]
Payloads = st.SearchStrategy[bytes]


def _edited_bytes(data: bytes, edits: list[Edit]) -> bytes:
    changed = bytearray(data)
    for kind, place, value in edits:
        at = place % (len(changed) + 1)
        match kind, value:
            case "flip", int(mask) if at < len(changed):
                changed[at] ^= mask
            case "cut", _:
                del changed[at:]
            case "drop", int(count):
                del changed[at : at + count]
            case "insert", bytes(piece):
                changed[at:at] = piece
            case "again", int(count):
                changed[at:at] = changed[at : at + count]
    return bytes(changed)


def _edited_text(data: bytes, edits: list[Edit]) -> bytes:
    """Tokens replaced by hostile ones, by others of the same text (which doubles keys), left out or put in."""
    tokens = TOKEN.findall(data.decode())
    for kind, place, value in edits:
        at = place % max(len(tokens), 1)
        match kind, value:
            case "replace", str(token):
                tokens[at : at + 1] = [token]
            case "swap", int(other):
                tokens[at : at + 1] = tokens[other % len(tokens) :][:1] if tokens else []
            case "insert", str(token):
                tokens[at:at] = [token, ","]
            case "drop", _:
                del tokens[at : at + 1]
    return " ".join(tokens).encode(errors="surrogatepass")


PLACE = st.integers(0, 2**16)
BYTE_EDIT = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
    st.tuples(st.just("cut"), PLACE, st.none()),
    st.tuples(st.sampled_from(["drop", "again"]), PLACE, st.integers(1, 40)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=8)),
)


def _text_edit(tokens: tuple[str, ...]) -> st.SearchStrategy[Edit]:
    return st.one_of(
        st.tuples(st.sampled_from(["replace", "replace", "insert"]), PLACE, st.sampled_from(tokens)),
        st.tuples(st.just("swap"), PLACE, PLACE),
        st.tuples(st.just("drop"), PLACE, st.none()),
    )


def _edited(edit: Callable[[bytes, list[Edit]], bytes], edits: st.SearchStrategy[Edit], data: bytes) -> Payloads:
    return st.lists(edits, max_size=3).map(partial(edit, data))


def files(*valid: bytes) -> Payloads:
    """For a decoder of bytes."""
    return st.one_of(st.binary(max_size=300), *(_edited(_edited_bytes, BYTE_EDIT, data) for data in valid))


def texts(*valid: bytes, more: tuple[str, ...] = ()) -> Payloads:
    """For a decoder of JSON, or of YAML with `more` tokens: `valid` is JSON."""
    edit = _text_edit((*TOKENS, *more))
    return st.one_of(*(_edited(_edited_text, edit, data) for data in valid), files(*valid))


def _joined(header: bytes, rest: bytes, length: int | None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + rest


def tensor_files(valid: bytes) -> Payloads:
    """For a decoder of safetensors: the header edited as text, and at times another length before it."""
    length = struct.unpack("<Q", valid[:8])[0]
    header, rest = valid[8 : 8 + length], valid[8 + length :]
    lengths = st.one_of(st.none(), st.none(), st.sampled_from([0, 1, length - 1, 10**8, 2**63, 2**64 - 1]))
    edited = st.builds(_joined, _edited(_edited_text, _text_edit(TOKENS), header), st.just(rest), lengths)
    return st.one_of(edited, edited, files(valid))
