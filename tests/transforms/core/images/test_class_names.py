"""Names of numbered classes: the forms that people have, and what none of them can be."""

from __future__ import annotations

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.class_names import parse_class_names

LETTERS = {number: chr(ord("A") + number - 1) for number in range(1, 27)}


def _lines(*lines: str) -> bytes:
  return "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.parametrize(
  ("data", "classes", "names"),
  [
    (_lines("ant", "bee"), (0, 1), {0: "ant", 1: "bee"}),
    (b"\xef\xbb\xbfant\r\n tabby cat \r\n\r\n", (0, 1), {0: "ant", 1: "tabby cat"}),
    (_lines("e\u0301tude", "bee"), (0, 1), {0: "\u00e9tude", 1: "bee"}),
    # By their numbers as long as there are enough lines, else in order.
    (_lines("N/A".replace("/", ""), "ant", "bee"), (1, 2), {1: "ant", 2: "bee"}),
    (_lines(*LETTERS.values()), LETTERS, LETTERS),
    (_lines("ant", "bee"), (7, 3), {3: "ant", 7: "bee"}),
    (_lines("5 ant", "3 bee", "9 unused"), (3, 5), {3: "bee", 5: "ant"}),
    (_lines("0,ant", "1: bee", "2\ttabby cat"), (0, 1, 2), {0: "ant", 1: "bee", 2: "tabby cat"}),
    # EMNIST's, of letters and of the balanced set.
    (_lines(*(f"{n} {64 + n} {96 + n}" for n in LETTERS)), LETTERS, LETTERS),
    (_lines("9 57", "10 65", "36 97"), (9, 10, 36), {9: "9", 10: "A", 36: "a"}),
    (_lines("0 48 hours", "1 65"), (0, 1), {0: "48 hours", 1: "65"}),
    (_lines("0", "1"), (0, 1), {0: "0", 1: "1"}),
  ],
)
def test_forms(data, classes, names):
  found = parse_class_names(data, "f", classes)
  assert found == names
  assert list(found) == sorted(names)


@pytest.mark.parametrize(
  ("data", "said"),
  [
    (_lines("ant", "bee"), "f has 2 names, and none for 2 of the labels 0 to 2: add a line NUMBER NAME"),
    (_lines("0 ant", "1 bee"), "and none for 2 of"),
    (b"", "f has 0 names, and none for 0 to 2 of"),
    (_lines("ant", "", "bee"), "f: line 2 is empty: give each class a name"),
    (
      _lines("T-shirt/top", "b", "c"),
      "f: line 1: no folder can have the name 'T-shirt/top': write for example 'T-shirt-top'",
    ),
    (_lines("a", "..", "c"), "f: line 2: no folder can have the name '..': write for example 'dot'"),
    (_lines("a", "b\x07", "c"), "write for example 'b-'"),
    (_lines("ant", "bee", "ant"), "f names both 0 and 2 'ant': give each label a name of its own"),
    (_lines("0 ant", "1 bee", "0 cow"), "f: line 3 names 0 a second time"),
    (b"ant\n\xff\n", "f: byte 4 is not UTF-8"),
  ],
)
def test_what_cannot_be_used_is_a_sentence(data, said):
  with pytest.raises(InputError) as error:
    parse_class_names(data, "f", (0, 1, 2))
  assert said in str(error.value)
