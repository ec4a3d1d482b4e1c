"""`beam-retrain verify`: checks that all ways to score an image agree.

Runs in this process, without a Beam job.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_retrain.pipelines.models.execution import Execution
from beam_retrain.pipelines.models.trained import Model, ModelTrunk, check_labels, choose_splits
from beam_retrain.pipelines.options.flags import add_model_precision_flags, given_precision
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.metrics_file import METRICS_FILE
from beam_retrain.transforms.core.models.inference import BATCH_SIZE, Inferred
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.run.cli import (
  ArgumentParser,
  ExitCode,
  add_max_bad_fraction,
  add_max_pixels,
  fraction,
  parse_flags,
  positive_int,
  run_command,
)
from beam_retrain.transforms.core.run.progress_line import ProgressLine
from beam_retrain.transforms.core.runtimes.variant import BFLOAT16, INT8
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.core.verify.agreement import Disagreement, Tally
from beam_retrain.transforms.evaluation.compare_outputs import check_comparable, compare_outputs
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.find import find_source

_BATCH_PATH = "batch path"
_EXPORTED = "exported model"
_IMAGES = 200
_BOUND = 1e-3
_BFLOAT16_BOUND = 0.1
_INT8_BOUND = 0.05

_DESCRIPTION = """\
Scores images in every way that a model offers, and compares the scores with those of the exported model in the batches
of a job. The other ways: its serving signature on the images' bytes, its trunk's bottlenecks through head.npz in numpy,
the frozen graph, the TensorFlow Lite files that `train` wrote, and the batch path (what `evaluate` runs): the prepared
trunk of the model's bottlenecks, then head.npz. The exit code is 1 if a score, 0..1, differs by more than --bound; the
first such image is named. In a batch path with bfloat16, --bfloat16_bound applies instead. In int8, scores are not
comparable: labels are compared, and may differ for the fraction --int8_bound of the images.

  beam-retrain verify --model work/model --input work/images
  beam-retrain verify --model work/model --input work/images --split testing --all

With --same, compares two finished output folders of one command record by record and row by row. The exit code is 1 if
they differ; the first difference is named. What may differ between two runs is ignored: the column Execution time, the
command line, paths, versions, logs, the report's charts.

  beam-retrain verify --same work/bottlenecks elsewhere/bottlenecks"""

_OF_MODEL = ("model", "input", "images", "all", "split", "bound", "bfloat16_bound", "int8_bound", "tflite")


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain verify", description=_DESCRIPTION)
  parser.add_argument("--model", metavar="DIR", help="output of `train`")
  parser.add_argument("--input", metavar="DIR", help="images: any input of `bottlenecks`")
  parser.add_argument(
    "--images", type=positive_int, metavar="N", help=f"size of the sample, which is reproducible (default {_IMAGES})"
  )
  parser.add_argument("--all", action="store_true", default=None, help="use all images, not a sample")
  parser.add_argument(
    "--split", choices=("auto", "testing", "all"), help="images to use, as in `evaluate` (default: all)"
  )
  parser.add_argument(
    "--bound",
    type=fraction,
    metavar="B",
    help=f"largest difference of two scores, 0..1, that counts as rounding (default {_BOUND:g})",
  )
  parser.add_argument(
    "--bfloat16_bound",
    type=fraction,
    metavar="B",
    help="largest difference of two scores, 0..1, that counts as rounding in bfloat16 (default"
    f" {_BFLOAT16_BOUND:g}; the largest on the 10,000 testing images of MNIST was 0.044)",
  )
  parser.add_argument(
    "--int8_bound",
    type=fraction,
    metavar="F",
    help="fraction of the images, 0..1, to which a file or trunk in int8 may give another label (default"
    f" {_INT8_BOUND:g})",
  )
  parser.add_argument(
    "--tflite",
    action="append",
    metavar="FILE",
    help="a TensorFlow Lite file; may be repeated (default: those that `train` wrote, if they are still there)",
  )
  parser.add_argument(
    "--same", nargs=2, metavar=("A", "B"), help="compare two finished output folders of the same command instead"
  )
  add_model_precision_flags(parser)
  add_max_pixels(parser)
  add_max_bad_fraction(parser)
  return parser


def run(argv: Sequence[str]) -> int:
  """Runs the command line; returns the exit code.

  Raises:
    InputError: an option, model or input cannot be used.
  """
  flags = parse_flags(make_parser(), argv)
  files.use_options()
  if flags.same:
    given = [f"--{name}" for name in _OF_MODEL if getattr(flags, name) is not None]
    if given := [*given, *given_precision(flags)]:
      raise InputError(f"--same cannot be combined with {given[0].split('=')[0]}: leave one out.")
    return _compare(*map(files.absolute, flags.same))
  missing = [name for name in ("model", "input") if getattr(flags, name) is None]
  if missing:
    raise InputError(f"--{missing[0]} is missing: give --model DIR and --input DIR, or --same A B.")
  if flags.all and flags.images:
    raise InputError("--all cannot be combined with --images: leave one out.")
  return _verify(flags)


def _compare(first: str, second: str) -> int:
  check_comparable(first, second)
  load_tensorflow()
  with ProgressLine("same", "records, rows and files") as progress:
    counted = 0

    def count(number: int) -> None:
      nonlocal counted
      counted += number
      progress.add(number)

    compared = compare_outputs(first, second, count)
  if compared.difference is None:
    print(f"the same: {compared.files:,} files, {counted:,} records, rows and whole files compared")
    return ExitCode.DONE
  print(f"{files.shown(first)} and {files.shown(second)} differ: {compared.difference}", file=sys.stderr)
  return ExitCode.GATE_MISSED


def _verify(flags: argparse.Namespace) -> int:
  if not files.is_local(flags.model):
    raise InputError(f"{flags.model} is remote, but models are loaded from local files only: give a local copy.")
  model = Model(files.absolute(flags.model))
  source = find_source(files.absolute(flags.input), len(model.labels), retrain_names=model.retrain_names)
  check_labels(source, model)
  splits, percentages = choose_splits(source, flags.split or "all", model.percentages, [model])
  trunk = ModelTrunk(model, flags.precision, flags.runtime)
  lite_files = flags.tflite if flags.tflite is not None else _written_lite_files(model)

  load_tensorflow()
  from beam_retrain.transforms.core.verify import score_paths  # loads TensorFlow

  bound = _BOUND if flags.bound is None else flags.bound
  exact = ImageModelHandler(model.saved_model, max_pixels=flags.max_pixels)
  precision = trunk.serving.variant.precision
  paths = [
    score_paths.serving_signature(model.path),
    score_paths.stored_head(model.path),
    score_paths.frozen_graph(model.path),
    *map(score_paths.lite_file, lite_files),
  ]
  if trunk.serving.is_prepared:  # otherwise the batch path is the exported model
    batch = trunk.to_scores(Execution(), flags.max_pixels)
    paths.insert(0, score_paths.loaded_model(batch.load_once(), f"{_BATCH_PATH} ({trunk.serving.variant})"))
  tallies = [Tally(path.name, bound if path.is_exact else None) for path in paths]
  if trunk.serving.is_prepared and precision != INT8:
    of_bfloat16 = _BFLOAT16_BOUND if flags.bfloat16_bound is None else flags.bfloat16_bound
    tallies[0].bound = of_bfloat16 if precision == BFLOAT16 else bound
  count = None if flags.all else flags.images or _IMAGES
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
        encoded = [entry.image.encoded for entry in inferred]
        for path, tally in zip(paths, tallies, strict=True):
          tally.add(keys, expected, path.score(encoded), model.labels)
      progress.add(len(entries))
  if not good + bad:
    raise InputError(
      f"{source.path} has no images of the split {' or '.join(splits)}: give another --input or --split."
    )
  if trunk.serving.why:
    print(trunk.serving, file=sys.stderr)
  return _report(tallies, good, bad, flags)


def _written_lite_files(model: Model) -> list[str]:
  """Returns the model's TensorFlow Lite files; reports missing ones."""
  metrics = json.loads(files.read_bytes(files.join(model.path, METRICS_FILE)))
  paths = []
  for entry in metrics.get("tflite", {}).values():
    path = os.path.normpath(os.path.join(model.path, entry["file"]))
    if os.path.isfile(path):
      paths.append(path)
    else:
      print(f"{files.shown(path)} no longer exists: skipped", file=sys.stderr)
  return paths


def _report(tallies: Sequence[Tally], good: int, bad: int, flags: argparse.Namespace) -> int:
  print(f"{good:,} images, compared with the {_EXPORTED}; differences of scores, 0..1\n")
  print(_table(tallies))
  int8_bound = _INT8_BOUND if flags.int8_bound is None else flags.int8_bound
  failures = [
    f"{tally.name} gives another label to {tally.other_labels:,} of {tally.images:,} images, more than"
    f" --int8_bound {int8_bound:g} allows; the first is {_words(tally.first, tally.name)}"
    if tally.bound is None
    else f"{tally.name} differs on {tally.beyond:,} of {tally.images:,} images; the first is"
    f" {_words(tally.first, tally.name)}"
    for tally in tallies
    if tally.first and (tally.bound is not None or tally.other_labels > int8_bound * tally.images)
  ]
  for failure in failures:
    print(f"beam-retrain: {failure}", file=sys.stderr)
  if failures:
    return ExitCode.GATE_MISSED
  if bad > flags.max_bad_fraction * (good + bad):
    print(f"beam-retrain: {bad} of {good + bad} images could not be used; see above.", file=sys.stderr)
    return ExitCode.TOO_MANY_BAD
  return ExitCode.DONE


def _words(first: Disagreement | None, name: str) -> str:
  assert first is not None
  return (
    f"{first.key}: {_EXPORTED} {first.expected}, {name} {first.found}; their scores of {first.label!r} differ by"
    f" {first.difference:.6f}"
  )


def _table(tallies: Sequence[Tally]) -> str:
  rows: list[Sequence[Any]] = [("path", "images", "largest difference", "allowed", "other label")]
  for tally in tallies:
    allowed = "any" if tally.bound is None else f"{tally.bound:g}"
    rows.append((tally.name, f"{tally.images:,}", f"{tally.largest:.2e}", allowed, f"{tally.other_labels:,}"))
  widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
  return "\n".join(
    "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
    for row in rows
  )


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
