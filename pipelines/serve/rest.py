"""TensorFlow Serving's REST API: its requests and answers as JSON.

See https://www.tensorflow.org/tfx/serving/api_rest. The signature is that of the exported model: `image_bytes` and
`key` in; `key`, `label`, `confidence`, `top_labels`, `top_scores` and `scores` out (`trainer/export/exporter.py`). Here
`key` may be left out, and a request with a bad image is refused with the reason for each.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.pipelines.predict import rank
from beam_retrain.transforms.core.models.inference import Inferred
from beam_retrain.transforms.core.records.quarantine import Quarantined

MAX_IMAGES = 128  # images of one request
_TOP = 5
_SIGNATURE = "serving_default"


class RefusedError(Exception):
  """Why a request is refused, in a sentence."""


class Asked(NamedTuple):
  """A request: keys and images; `in_rows` if given as `instances`."""

  keys: Sequence[str]
  images: Sequence[bytes]
  in_rows: bool


def parse(body: bytes) -> Asked:
  """Reads a request's body; raises RefusedError."""
  try:
    request = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise RefusedError("the body is not JSON.") from error
  if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
    raise RefusedError('the body is an object with either "instances" or "inputs".')
  if request.get("signature_name", _SIGNATURE) != _SIGNATURE:
    raise RefusedError(f'the signature is "{_SIGNATURE}".')
  if "instances" in request:
    rows = request["instances"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "image_bytes" in row for row in rows):
      raise RefusedError('"instances" is a list of {"key": "...", "image_bytes": {"b64": "..."}}.')
    encoded, keys = [row["image_bytes"] for row in rows], [row.get("key", "") for row in rows]
  else:
    columns = request["inputs"]
    if not isinstance(columns, dict) or not isinstance(columns.get("image_bytes"), list):
      raise RefusedError('"inputs" is {"key": ["...", ...], "image_bytes": [{"b64": "..."}, ...]}.')
    encoded = columns["image_bytes"]
    keys = columns.get("key", [""] * len(encoded))
  if not isinstance(keys, list) or len(keys) != len(encoded) or not all(map(_is_text, keys)):
    raise RefusedError('"key" is a text for each image.')
  if not 0 < len(encoded) <= MAX_IMAGES:
    raise RefusedError(f"a request has 1 to {MAX_IMAGES} images, this one {len(encoded)}.")
  return Asked(keys, [_decode(value, number) for number, value in enumerate(encoded)], "instances" in request)


def _is_text(value: object) -> bool:
  return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)  # UTF-8 has none


def _decode(value: object, number: int) -> bytes:
  text = value.get("b64") if isinstance(value, dict) and len(value) == 1 else None
  if not isinstance(text, str):
    raise RefusedError(f'image {number} is not {{"b64": "..."}}.')
  try:
    return base64.b64decode(text, validate=True)
  except ValueError as error:
    raise RefusedError(f"image {number} is not base64.") from error


def answer(asked: Asked, results: Sequence[Inferred | Quarantined], labels: Sequence[str]) -> dict[str, object]:
  """Returns the answer; raises RefusedError, with a reason for each bad image."""
  faults = [
    f"image {number} ({asked.keys[number]!r}) {result.reason}: {result.detail}"
    for number, result in enumerate(results)
    if isinstance(result, Quarantined)
  ]
  if faults:
    raise RefusedError("; ".join(faults))
  rows = [
    {"key": key, **_decide(result.outputs["scores"], labels)}
    for key, result in zip(asked.keys, results, strict=True)
    if isinstance(result, Inferred)
  ]
  if asked.in_rows:
    return {"predictions": rows}
  return {"outputs": {name: [row[name] for row in rows] for name in rows[0]}}


def _decide(scores: np.ndarray, labels: Sequence[str]) -> dict[str, object]:
  names, values = map(list, zip(*rank(scores, labels, _TOP), strict=True))
  best = {"label": names[0], "confidence": values[0], "top_labels": names, "top_scores": values}
  return {**best, "scores": scores.tolist()}


def status() -> dict[str, object]:
  """Returns the answer of `GET /v1/models/NAME`."""
  state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
  return {"model_version_status": [state]}
