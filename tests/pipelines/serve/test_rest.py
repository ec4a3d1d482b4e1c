import base64
import json

import numpy as np
import pytest

from beam_retrain.pipelines.serve.rest import MAX_IMAGES, Asked, RefusedError, answer, parse
from beam_retrain.transforms.core.models.inference import Inferred
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image

LABELS = ["ant", "bee", "cow"]


def b64(data: bytes) -> dict[str, str]:
  return {"b64": base64.b64encode(data).decode()}


def inferred(*scores: float) -> Inferred:
  return Inferred(Image("0", "", b"x"), {"scores": np.array(scores, np.float32)})


def test_rows_and_columns_ask_the_same():
  rows = {"instances": [{"key": "a", "image_bytes": b64(b"1")}, {"image_bytes": b64(b"2")}]}
  columns = {"inputs": {"key": ["a", ""], "image_bytes": [b64(b"1"), b64(b"2")]}, "signature_name": "serving_default"}
  assert parse(json.dumps(rows).encode()) == Asked(["a", ""], [b"1", b"2"], True)
  assert parse(json.dumps(columns).encode()) == Asked(["a", ""], [b"1", b"2"], False)


@pytest.mark.parametrize(
  "body",
  [
    b"",
    b"[1]",
    b"\xff",
    b"[" * 100_000,
    b"{}",
    b'{"instances": [], "inputs": {}}',
    b'{"instances": []}',
    b'{"instances": 5}',
    b'{"instances": ["x"]}',
    b'{"instances": [{"image_bytes": "x"}]}',
    b'{"instances": [{"image_bytes": {"b64": "?"}}]}',
    b'{"instances": [{"image_bytes": {"b64": 5}}]}',
    b'{"instances": [{"image_bytes": {"b64": ""}, "key": 5}]}',
    b'{"instances": [{"image_bytes": {"b64": ""}, "key": "\\ud800"}]}',
    b'{"inputs": {"image_bytes": {"b64": ""}}}',
    b'{"inputs": {"image_bytes": [{"b64": ""}], "key": ["a", "b"]}}',
    b'{"inputs": {"image_bytes": [{"b64": ""}]}, "signature_name": "bottlenecks"}',
    json.dumps({"instances": [{"image_bytes": b64(b"x")}] * (MAX_IMAGES + 1)}).encode(),
  ],
)
def test_what_is_no_request_is_refused_with_a_sentence(body):
  with pytest.raises(RefusedError, match=r"\.$"):
    parse(body)


def test_the_answer_has_the_fields_of_the_signature():
  asked = Asked(["k"], [b"x"], True)
  (row,) = answer(asked, [inferred(0.25, 0.5, 0.25)], LABELS)["predictions"]
  assert row == {
    "key": "k",
    "label": "bee",
    "confidence": 0.5,
    "top_labels": ["bee", "ant", "cow"],
    "top_scores": [0.5, 0.25, 0.25],
    "scores": [0.25, 0.5, 0.25],
  }
  columns = answer(asked._replace(in_rows=False), [inferred(0.25, 0.5, 0.25)], LABELS)["outputs"]
  assert columns == {name: [value] for name, value in row.items()}


def test_a_bad_image_is_named_with_its_reason():
  bad = Quarantined("1", 3, Reason.TRUNCATED, "the file ends too early")
  with pytest.raises(RefusedError, match=r"image 1 \('b'\) TRUNCATED: the file ends too early"):
    answer(Asked(["a", "b"], [b"x", b"y"], True), [inferred(1, 0, 0), bad], LABELS)
