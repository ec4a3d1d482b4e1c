"""The first difference of two files, in words."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.example import encode_example
from beam_retrain.transforms.core.records.schema import Bottleneck, encode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.evaluation import output_diff


def compare(function, first: bytes, second: bytes) -> tuple[str | None, int]:
  """Returns what differs, and how much was counted."""
  counted: list[int] = []
  words = function(io.BytesIO(first), io.BytesIO(second), "file", counted.append)
  return words, sum(counted)


def bottleneck(number: int, **changed) -> bytes:
  fields = {
    "key": f"training/5/{number}.png",
    "label": "5",
    "class_index": 5,
    "vector": np.arange(4, dtype=np.float32) + number,
    "format": "png",
    "height": 28,
    "width": 28,
    "sha256": "0" * 64,
  }
  return frame(encode_bottleneck(Bottleneck(**{**fields, **changed})))


RECORDS = [bottleneck(number) for number in range(4)]


def changed(number: int, **fields) -> bytes:
  return b"".join([*RECORDS[:number], bottleneck(number, **fields), *RECORDS[number + 1 :]])


@pytest.mark.parametrize(
  ("second", "words"),
  [
    (
      changed(2, vector=np.array([2, 3, 4.5, 5], np.float32)),
      "record 2 (training/5/2.png): bottleneck[2] is 4.0, in the second 4.5",
    ),
    (changed(1, label="7", class_index=7), "record 1 (training/5/1.png): image/class/label is 5, in the second 7"),
    (changed(0, key="a", label="b"), "record 0 (training/5/0.png): image/key is 'training/5/0.png', in the second 'a'"),
    (
      changed(3, vector=np.zeros(3, np.float32)),
      "record 3 (training/5/3.png): bottleneck has 4 values, in the second 3",
    ),
    (b"".join(RECORDS[:3]), "record 3 (training/5/3.png) is only in the first"),
    (b"".join([*RECORDS, RECORDS[0]]), "record 4 (training/5/0.png) is only in the second"),
    (b"".join([*RECORDS[:3], frame(encode_example({"image/key": "training/5/3.png"}))]), "bottleneck is only in the"),
    (b"".join([*RECORDS[:3], frame(b"\xff\xff")]), "record 3 (training/5/3.png): its bytes differ"),
  ],
)
def test_records(second, words):
  found, _ = compare(output_diff.difference_of_records, b"".join(RECORDS), second)
  assert words in found


def test_records_that_hold_the_same():
  assert compare(output_diff.difference_of_records, b"".join(RECORDS), b"".join(RECORDS)) == (None, 4)
  nan = changed(1, vector=np.array([np.nan] * 4, np.float32))
  assert compare(output_diff.difference_of_records, nan, nan)[0] is None
  with pytest.raises(InputError, match="file ends inside the record"):
    compare(output_diff.difference_of_records, b"".join(RECORDS), b"".join(RECORDS)[:-3])


ROWS = b"file_name,confidence,Execution time\na,99.5,Mon\nb,50.25,Mon\n"


@pytest.mark.parametrize(
  ("second", "words"),
  [
    (ROWS.replace(b"50.25", b"50.24"), "row 2 (b): confidence is '50.25', in the second '50.24'"),
    (
      ROWS.replace(b"confidence", b"margin"),
      "the columns are file_name,confidence,Execution time, in the second file_",
    ),
    (ROWS + b"c,1,Mon\n", "row 3 (c) is only in the second"),
    (ROWS[: ROWS.index(b"b,")], "row 2 (b) is only in the first"),
    (ROWS.replace(b"b,50.25,Mon", b"b,50.25"), "row 2 (b) has 3 cells, in the second 2"),
  ],
)
def test_rows(second, words):
  found, _ = compare(output_diff.difference_of_rows, ROWS, second)
  assert words in found


def test_rows_that_hold_the_same():
  assert compare(output_diff.difference_of_rows, ROWS, ROWS.replace(b"Mon", b"Tue")) == (None, 2)
  assert compare(output_diff.difference_of_rows, b"", b"") == (None, 0)


INFO = {
  "command": "beam-retrain train",
  "request": "1",
  "versions": {"numpy": "2"},
  "settings": {"input": "a", "seed": 0, "labels": ["x", "y"]},
  "trunk": {"handle": "bundled", "fingerprint": "f"},
  "per_label": {"input": {"recall": 0.5}},
}


@pytest.mark.parametrize(
  ("path", "value", "words"),
  [
    (("settings", "seed"), 1, "settings.seed is 0, in the second 1"),
    (("settings", "labels"), ["x", "z"], "settings.labels[1] is 'y', in the second 'z'"),
    (("settings", "labels"), ["x"], "settings.labels is ['x', 'y'], in the second ['x']"),
    (("trunk", "fingerprint"), "g", "trunk.fingerprint is 'f', in the second 'g'"),
    (("trunk",), None, "trunk is {"),
    (("per_label", "input", "recall"), 0.25, "per_label.input.recall is 0.5, in the second 0.25"),
    (("new",), 1, "new is only in the second"),
    (("command",), "other", None),
    (("request",), "2", None),
    (("versions", "numpy"), "3", None),
    (("settings", "input"), "b", None),
    (("trunk", "handle"), "/a/trunk", None),
  ],
)
def test_json(path, value, words):
  other = json.loads(json.dumps(INFO))
  place = other
  for name in path[:-1]:
    place = place[name]
  place[path[-1]] = value
  found, _ = compare(output_diff.difference_of_json, json.dumps(INFO).encode(), json.dumps(other).encode())
  assert (found is None) if words is None else (found is not None and found.startswith(words)), found


def npz(**arrays) -> bytes:
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def test_arrays():
  first = npz(a=np.arange(6.0).reshape(2, 3), b=np.array([np.nan]))
  assert compare(
    output_diff.difference_of_arrays, first, npz(b=np.array([np.nan]), a=np.arange(6.0).reshape(2, 3))
  ) == (
    None,
    2,
  )
  for second, words in (
    (npz(a=np.array([[0, 1, 2], [3, 9.0, 5]]), b=np.array([np.nan])), "a[4] is 4.0, in the second 9.0"),
    (npz(a=np.arange(6.0), b=np.array([np.nan])), "a is float64[2, 3], in the second float64[6]"),
    (npz(a=np.arange(6.0).reshape(2, 3)), "b is only in the first"),
  ):
    assert compare(output_diff.difference_of_arrays, first, second)[0] == words
  with pytest.raises(InputError, match="file is damaged"):
    compare(output_diff.difference_of_arrays, first, first[:40])


def saved(folder, factor: float) -> bytes:
  module = tf.Module()
  module.scale = tf.function(lambda x: x * tf.constant([factor, 1.0]), input_signature=[tf.TensorSpec([None, 2])])
  tf.saved_model.save(module, str(folder))
  return (folder / "saved_model.pb").read_bytes()


def test_graphs(tmp_path):
  first, again, other = saved(tmp_path / "1", 2.0), saved(tmp_path / "2", 2.0), saved(tmp_path / "3", 3.0)
  assert first != again  # TensorFlow numbers functions as they come
  assert compare(output_diff.difference_of_graphs, first, again)[0] is None
  assert "Const of one kind" in compare(output_diff.difference_of_graphs, first, other)[0]
  with pytest.raises(InputError, match="file is damaged"):
    compare(output_diff.difference_of_graphs, first, b"\xff" * 9)


def test_bytes():
  data = bytes(range(256)) * 8000  # more than is read at once
  assert compare(output_diff.difference_of_bytes, data, data)[0] is None
  late = data[:-7] + b"\x00" + data[-6:]
  assert compare(output_diff.difference_of_bytes, data, late)[0] == f"byte {len(data) - 7} is 0xf9, in the second 0x00"
  shorter = compare(output_diff.difference_of_bytes, data, data[:-7])[0]
  assert shorter == f"the second ends at byte {len(data) - 7}, the first goes on"
