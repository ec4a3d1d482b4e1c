"""`beam-retrain predict`: labels single images, without a Beam job."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.pipelines.models.photos import PROBED, are_photos
from beam_retrain.pipelines.requests.predict import PredictRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.exif import is_oriented, tell_oriented
from beam_retrain.transforms.core.models.choose_variant import ServingVariant, choose_serving_variant
from beam_retrain.transforms.core.models.head import HEAD_FILE, decode_head
from beam_retrain.transforms.core.models.inference import LoadedModel, infer_images, load_model, with_head
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.records.csv_format import csv_line, escape_cell
from beam_retrain.transforms.core.records.quarantine import MAX_FILE_BYTES, Quarantined, Reason
from beam_retrain.transforms.core.records.schema import SAVED_MODEL_FOLDER, TRUNK_FOLDER, Image
from beam_retrain.transforms.core.run.exit_codes import exit_code_for_images, run_command
from beam_retrain.transforms.core.run.flags import accept_bad
from beam_retrain.transforms.core.run.output_folder import find_output, read_info, read_labels
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.runtimes.prepared import find_prepared
from beam_retrain.transforms.core.runtimes.trunk_info import BUNDLED, default_batch
from beam_retrain.transforms.core.runtimes.variant import AUTO
from beam_retrain.transforms.core.system import listing, local_files

Prediction = tuple[str, list[tuple[str, float]]]  # an image's path and its (label, score 0..1), the best first

run = PredictRequest.run


class Job(NamedTuple):
  request: PredictRequest
  model: LoadedModel
  labels: Sequence[str]
  paths: Sequence[str]


def execute(request: PredictRequest) -> int:
  job = plan(request)
  bad: list[Quarantined] = []
  oriented: list[str] = []
  for line in _FORMATS[job.request.format](predict(job, bad, oriented)):
    print(line, flush=True)
  if oriented:
    source = request.images[0] if len(request.images) == 1 and os.path.isdir(request.images[0]) else ""
    # Beside a folder that is one class of a data set, the converted images would be another class.
    upright = f"{os.path.basename(os.path.abspath(source))}_upright"
    flags = [accept_bad(len(bad) / len(job.paths))] if bad else []
    say(tell_oriented(len(oriented), len(job.paths) - len(bad), source, upright, flags), file=sys.stderr)
  return exit_code_for_images(len(bad), len(job.paths), job.request.max_bad_fraction)


def plan(request: PredictRequest) -> Job:
  """Finds the images and loads the model.

  Raises:
    InputError: the model or an argument cannot be used.
  """
  local_files.check_local("predict", request.model, *request.images)
  folder = find_output(request.model, "train")
  info, labels = read_info(folder, "train"), read_labels(folder)
  paths = find_images(request.images)
  serving = choose_serving(folder, info, request.precision, request.runtime)
  if serving.why:
    say(serving, file=sys.stderr)
  batch_size = default_batch(serving.variant.runtime, info.trunk.input_px)
  model = load_classifier(folder, serving, min(batch_size, len(paths)))
  if info.trunk.handle == BUNDLED and are_photos(_bytes_of(paths[:PROBED])):
    say("the model's bundled trunk knows only glyphs: for photos, train with --trunk inception_v3", file=sys.stderr)
  return Job(request, model, labels, paths)


def _bytes_of(paths: Sequence[str]) -> Iterator[bytes]:
  """Yields the files that can be read."""
  for image in map(read_image, paths):
    if isinstance(image, Image):
      yield image.encoded


def choose_serving(folder: str, info: RunInfo, precision: str = AUTO, runtime: str = AUTO) -> ServingVariant:
  """Chooses how the model in a folder runs here; see `choose_serving_variant`."""
  has_prepared = bool(find_prepared(os.path.join(folder, TRUNK_FOLDER)))
  return choose_serving_variant(folder, info.trunk.variant, info.preprocessing or "", has_prepared, precision, runtime)


def load_classifier(folder: str, serving: ServingVariant, batch_size: int = 0) -> LoadedModel:
  """Loads a model; its output is `scores`, for `batch_size` see `load_model`."""
  if not serving.is_prepared:
    return load_model(os.path.join(folder, SAVED_MODEL_FOLDER))
  head = os.path.join(folder, HEAD_FILE)
  return with_head(load_trunk_of(folder, serving, batch_size), decode_head(local_files.read_bytes(head), head), head)


def load_trunk_of(folder: str, serving: ServingVariant, batch_size: int = 0) -> LoadedModel:
  """Loads the trunk of a model; its output is `bottleneck`."""
  if serving.is_prepared:
    return load_model(os.path.join(folder, TRUNK_FOLDER), batch_size=batch_size)
  return load_model(os.path.join(folder, SAVED_MODEL_FOLDER), trunk_only=True)


def predict(job: Job, bad: list[Quarantined], oriented: list[str]) -> Iterator[Prediction]:
  """Yields a prediction per image; reports bad ones, also in `bad`.

  Adds the paths of images with an EXIF orientation to `oriented`.
  """
  batch_size = min(job.model.batch_size, len(job.paths))
  for result in infer_images(map(read_image, job.paths), job.model, batch_size=batch_size):
    if isinstance(result, Quarantined):
      bad.append(result)
      print(f"{result.key}: {result.reason}: {result.detail}", file=sys.stderr)
    else:
      if is_oriented(result.image.encoded):
        oriented.append(result.image.key)
      yield result.image.key, rank(result.outputs["scores"], job.labels, job.request.top)


def rank(scores: np.ndarray, labels: Sequence[str], top: int) -> list[tuple[str, float]]:
  """Returns (label, score 0..1) of the `top` best, the best first."""
  # Stable, so that the first label wins a tie, as in the exported model's own top-k.
  return [(labels[index], float(scores[index])) for index in np.argsort(-scores, kind="stable")[:top]]


def find_images(arguments: Iterable[str]) -> list[str]:
  """Returns the files to predict, without duplicates."""
  paths: dict[str, None] = {}
  up: list[str] = []
  for argument in arguments:
    if os.path.isdir(argument):
      inside = sorted(entry.path for entry in listing.walk(argument, images=True, up=up))
      if not inside:
        raise InputError(f"{argument} has no images: give an image or a folder of images.")
      paths.update(dict.fromkeys(inside))
    elif os.path.exists(argument):
      paths[argument] = None
    else:
      raise InputError(f"{argument} does not exist: give an image or a folder of images.")
  if line := listing.left_out({}, up):
    say(line, file=sys.stderr)
  return list(paths)


def read_image(path: str) -> Image | Quarantined:
  """Reads a local image file; its key is its path."""
  try:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
      return Quarantined(path, 0, Reason.UNREADABLE, "is not a regular file")
    if status.st_size > MAX_FILE_BYTES:
      return Quarantined.too_large(path, status.st_size)
    return Image(key=path, label="", encoded=local_files.read_bytes(path))
  except OSError as error:
    return Quarantined(path, 0, Reason.UNREADABLE, str(error.strerror))


def _as_text(predictions: Iterable[Prediction]) -> Iterator[str]:
  for path, ranked in predictions:
    yield f"{path}: " + ", ".join(f"{label} {score:.2%}" for label, score in ranked)


def _as_csv(predictions: Iterable[Prediction]) -> Iterator[str]:
  """One line per image and label; confidence 0..1."""
  yield "file_name,rank,label,confidence"
  for path, ranked in predictions:
    for rank, (label, score) in enumerate(ranked, start=1):
      yield csv_line([escape_cell(path), rank, escape_cell(label), f"{score:.6f}"], end="")


def _as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
  """One JSON object per line."""
  for path, ranked in predictions:
    top = [{"label": label, "confidence": round(score, 6)} for label, score in ranked]
    yield json.dumps({"file_name": path, "label": ranked[0][0], "confidence": top[0]["confidence"], "top": top})


_FORMATS = {"text": _as_text, "csv": _as_csv, "json": _as_json}

if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
