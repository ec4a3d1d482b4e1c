"""`beam-retrain verify`: checks that all ways to score an image agree.

Runs in this process, without a Beam job.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from beam_retrain.pipelines.evaluation.images import Images, choose_images, find_images
from beam_retrain.pipelines.models.execution import Execution
from beam_retrain.pipelines.models.trained import Model, ModelTrunk
from beam_retrain.pipelines.requests.verify import VerifyRequest
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import Inferred
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, METRICS_FILE
from beam_retrain.transforms.core.run import contents
from beam_retrain.transforms.core.run.exit_codes import ExitCode, exit_code_for_images, run_command
from beam_retrain.transforms.core.run.output_folder import find_faults
from beam_retrain.transforms.core.run.progress_line import ProgressLine
from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE
from beam_retrain.transforms.core.runtimes.variant import AUTO, BFLOAT16, INT8
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.evaluation.output_diff import check_comparable, compare_outputs
from beam_retrain.transforms.io import files

if TYPE_CHECKING:
  from beam_retrain.transforms.core.models.score_paths import ScoringPath  # loads TensorFlow

_OF_MODEL = (
  "model",
  "input",
  "images",
  "all",
  "split",
  "bound",
  "bfloat16_bound",
  "int8_bound",
  "tflite",
  "class_names",
  "transpose",
)

run = VerifyRequest.run


class Job(NamedTuple):
  """A model, and the images to score in each of its ways."""

  request: VerifyRequest
  model: Model
  trunk: ModelTrunk
  images: Images
  lite_files: Sequence[str]


def execute(request: VerifyRequest) -> int:
  files.use_options()
  if mode := "same" if request.same else "folder" if request.folder else "":
    alone = [name for name in (*_OF_MODEL, "folder") if name in request.given and name != mode]
    alone += [name for name in ("precision", "runtime") if getattr(request, name) != AUTO]
    if alone:
      raise InputError(f"--{mode} cannot be combined with --{alone[0]}: leave one out.")
    return (
      _compare(*map(files.absolute, request.same)) if request.same else _check(files.absolute(request.folder or ""))
    )
  job = plan(request)
  return report(job, *score(job))


def _compare(first: str, second: str) -> int:
  check_comparable(first, second)
  load_tensorflow()
  with ProgressLine("same", "records, rows and files") as progress:
    counted = 0

    def count(number: int) -> None:
      nonlocal counted
      counted += number
      progress.add(number)

    number_of_files, difference = compare_outputs(first, second, count)
  if difference is None:
    print(f"the same: {number_of_files:,} files, {counted:,} records, rows and whole files compared")
    return ExitCode.DONE
  print(f"{files.shown(first)} and {files.shown(second)} differ: {difference}", file=sys.stderr)
  return ExitCode.GATE_MISSED


def _check(folder: str) -> int:
  outputs = [files.split(stat.path)[0] for stat in files.match_in(folder, f"**/{COMPLETED_FILE}")]
  if not outputs:
    raise InputError(
      f"{folder} contains no finished output of beam-retrain: give a folder that one of its commands wrote."
    )
  checked, damaged, unlisted = 0, 0, [output for output in outputs if not contents.has_list(output, files)]
  with ProgressLine("verify", "files") as progress:
    for output in outputs:
      faults = list(find_faults(output, files, with_data=True))
      damaged += len(faults)
      for path, fault in faults:
        print(f"{files.shown(output)}/{path} {fault}", file=sys.stderr)
      if output not in unlisted and not damaged:
        listed = sum(1 for _ in contents.read_list(output, files))
        checked += listed
        progress.add(listed)
  for output in unlisted:
    say(f"{files.shown(output)} has no list of its files, as before version 0.5: not checked", file=sys.stderr)
  if damaged or not checked:
    return ExitCode.GATE_MISSED if damaged else ExitCode.FAILED
  print(f"{checked:,} files of {len(outputs) - len(unlisted)} outputs are as they were written")
  return ExitCode.DONE


def plan(request: VerifyRequest) -> Job:
  """Checks the model and the images.

  Raises:
    InputError: an option, model or input cannot be used.
  """
  if request.model is None or request.input is None:
    missing = "model" if request.model is None else "input"
    raise InputError(f"--{missing} is missing: give --model DIR and --input DIR, or --same A B, or --folder DIR.")
  if request.all and "images" in request.given:
    raise InputError("--all cannot be combined with --images: leave one out.")
  if not files.is_local(request.model):
    raise InputError(f"{request.model} is remote, but models are loaded from local files only: give a local copy.")
  model = Model(files.absolute(request.model))
  source = find_images(files.absolute(request.input), request, model)
  images = choose_images(source, request.split, [model])
  trunk = ModelTrunk(model, request.precision, request.runtime)
  return Job(request, model, trunk, images, request.tflite or _written_lite_files(model))


def score(job: Job) -> tuple[list[ScoringPath], int, int]:
  """Scores the images in every way, and compares the scores.

  Returns the ways, the number of images and that of bad ones.
  """
  load_tensorflow()
  request, model = job.request, job.model
  exact = ImageModelHandler(model.saved_model, max_pixels=request.max_pixels)
  paths = _scoring_paths(job)
  count = None if request.all else request.images
  source, splits, percentages = job.images
  images = source.read_sample(splits, percentages, count) if count else source.read_all(splits, percentages)
  good, bad = 0, 0
  with ProgressLine("verify", total=count) as progress:
    for entries in batched(exact.infer(images, exact.load_once), BATCH_SIZE):
      for entry in entries:
        if isinstance(entry, Quarantined):
          print(f"{entry.key}: {entry.reason}: {entry.detail}", file=sys.stderr)
      inferred = [entry for entry in entries if isinstance(entry, Inferred)]
      good, bad = good + len(inferred), bad + len(entries) - len(inferred)
      if inferred:
        expected = np.stack([entry.outputs["scores"] for entry in inferred])
        keys = [entry.image.key for entry in inferred]
        for path in paths:
          path.add(keys, [entry.image.decodable for entry in inferred], expected, model.labels)
      progress.add(len(entries))
  if not good + bad:
    raise InputError(job.images.empty_message)
  return paths, good + bad, bad


def _scoring_paths(job: Job) -> list[ScoringPath]:
  from beam_retrain.transforms.core.models import score_paths  # loads TensorFlow

  request, folder, serving = job.request, job.model.path, job.trunk.serving
  paths = [
    score_paths.serving_signature(folder),
    score_paths.stored_head(folder),
    score_paths.frozen_graph(folder),
    *map(score_paths.lite_file, job.lite_files),
  ]
  for path in paths:
    path.bound = request.bound if path.is_exact else None
  if serving.is_prepared:  # otherwise the batch path is the exported model
    worker = job.trunk.to_scores(Execution(), request.max_pixels).load_once()
    batch = score_paths.ScoringPath(
      f"batch path ({serving.variant})", lambda encoded: worker.infer(worker.preprocess(encoded))["scores"]
    )
    if serving.variant.precision != INT8:
      batch.bound = request.bfloat16_bound if serving.variant.precision == BFLOAT16 else request.bound
    paths.insert(0, batch)
  return paths


def _written_lite_files(model: Model) -> list[str]:
  """Returns the model's TensorFlow Lite files; reports missing ones."""
  metrics = json.loads(files.read_bytes(files.join(model.path, METRICS_FILE)))
  paths = []
  for entry in metrics.get("tflite", {}).values():
    path = os.path.normpath(os.path.join(model.path, entry["file"]))
    if os.path.isfile(path):
      paths.append(path)
    else:
      say(f"{files.shown(path)} no longer exists: skipped", file=sys.stderr)
  return paths


def report(job: Job, paths: Sequence[ScoringPath], images: int, bad: int) -> int:
  """Prints the differences; returns the exit code."""
  request = job.request
  if job.trunk.serving.why:
    say(job.trunk.serving, file=sys.stderr)
  compared = f"{images - bad:,} images, compared with the exported model; differences of scores, 0..1"
  print(compared, "", *_table(paths), sep="\n")
  failed = False
  for path in paths:
    if path.first and (path.bound is not None or path.other_labels > request.int8_bound * path.images):
      failed = True
      differs = f"differs on {path.beyond:,} of {path.images:,} images"
      if path.bound is None:
        differs = (
          f"gives another label to {path.other_labels:,} of {path.images:,} images, more than"
          f" --int8_bound {request.int8_bound:g} allows"
        )
      print(f"beam-retrain: {path.name} {differs}; the first is {path.first}", file=sys.stderr)
  return ExitCode.GATE_MISSED if failed else exit_code_for_images(bad, images, request.max_bad_fraction)


def _table(paths: Sequence[ScoringPath]) -> list[str]:
  rows = [("path", "images", "largest difference", "allowed", "other label")]
  for path in paths:
    allowed = "any" if path.bound is None else f"{path.bound:g}"
    rows.append((path.name, f"{path.images:,}", f"{path.largest:.2e}", allowed, f"{path.other_labels:,}"))
  first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
  return [
    "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
    for row in rows
  ]


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
