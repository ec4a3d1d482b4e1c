"""`beam-retrain label_image`: what `label_imageV3.py` did, with any frozen graph.

A folder of images is a Beam job. A single image needs no Beam, and `--help` neither that nor TensorFlow: each is
imported where it is needed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from beam_retrain.pipelines.options.request import separate_beam_options
from beam_retrain.transforms.core.compat.graph_call import GraphCall, find_call, parse_graph
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.run.exit_codes import ExitCode, run_command
from beam_retrain.transforms.core.run.flags import (
  ArgumentParser,
  add_option,
  max_bad_option,
  max_pixels_option,
  parse_flags,
  positive_int,
  trunk_threads_option,
)
from beam_retrain.transforms.core.system import local_files

if TYPE_CHECKING:
  from beam_retrain.transforms.core.models.inference import LoadedModel

PROG = "beam-retrain label_image"
SINGLE, FOLDER = 1, 2
EXAMPLE_FOLDER = "tensorflow/examples/label_image/data/"  # the script's defaults
_RESIZE = {"auto": None, "tf1": False, "tf2": True}

_DESCRIPTION = """\
Labels images with any frozen graph (.pb), as label_imageV3.py did: one image, or all below a folder, where the names
of the images' own folders are the true labels. Has all flags of that script, with its defaults. A graph may have the
operations that image classifiers are made of; one with others, which could access files, is refused.

writes   --process_mode=1: digit_prediction_file.csv, one line without a header
         --process_mode=2: <seconds>digit_prediction_file.csv, in the current folder as the script did, or OUTPUT/
         unusable files are listed in ..._quarantine.csv next to it, or OUTPUT/quarantine.csv"""

_EPILOG = """\
example:
  beam-retrain label_image --graph=output_graph.pb --labels=output_labels.txt --input_layer=Placeholder \\
    --output_layer=final_result --image=samples/3.jpg
  beam-retrain label_image --graph=output_graph.pb --labels=output_labels.txt --input_layer=Placeholder \\
    --output_layer=final_result --directory_name=samples --process_mode=2

With --process_mode=2 any Beam option may follow, for example --runner=FlinkRunner, or
  --direct_running_mode=multi_processing --direct_num_workers=2   for two processes on this machine.
A killed run resumes when it is started again in the same folder."""


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog=PROG, description=_DESCRIPTION, epilog=_EPILOG)
  script = parser.add_argument_group("flags of label_imageV3.py")
  script.add_argument(
    "--image", metavar="FILE", help=f"the image, with any extension (default: {EXAMPLE_FOLDER}grace_hopper.jpg)"
  )
  script.add_argument("--directory_name", metavar="DIR", help=f"the folder of images (default: {EXAMPLE_FOLDER})")
  script.add_argument(
    "--process_mode",
    type=int,
    choices=(SINGLE, FOLDER),
    default=SINGLE,
    help="1: a single image (default); 2: a folder",
  )
  script.add_argument(
    "--graph", default=f"{EXAMPLE_FOLDER}inception_v3_2016_08_28_frozen.pb", metavar="FILE", help="default: %(default)s"
  )
  script.add_argument(
    "--labels",
    default=f"{EXAMPLE_FOLDER}imagenet_slim_labels.txt",
    metavar="FILE",
    help="one label per line, in the order of the graph's scores (default: %(default)s)",
  )
  script.add_argument("--input_height", type=positive_int, metavar="PX", help="default: the graph's own, else 299")
  script.add_argument("--input_width", type=positive_int, metavar="PX", help="likewise")
  script.add_argument("--input_mean", type=_number, default=0.0, metavar="X", help="subtracted first (default: 0)")
  script.add_argument("--input_std", type=_divisor, default=255.0, metavar="X", help="divided by then (default: 255)")
  script.add_argument("--input_layer", default="input", metavar="NAME", help="default: %(default)s")
  script.add_argument(
    "--output_layer", default="InceptionV3/Predictions/Reshape_1", metavar="NAME", help="default: %(default)s"
  )
  parser.add_argument(
    "--output", metavar="DIR", help="with --process_mode=2: output folder; new, empty, or of an earlier run"
  )
  parser.add_argument(
    "--resize",
    choices=tuple(_RESIZE),
    default="auto",
    help="tf1: as the script did; tf2: with aligned pixel centres, as in TensorFlow 2; auto (default): tf2 for a graph"
    " that `beam-retrain` trained and froze, else tf1",
  )
  parser.add_argument(
    "--batch_size", type=positive_int, default=32, metavar="N", help="images per call of the graph (default: 32)"
  )
  add_option(parser, "max_pixels", max_pixels_option())
  add_option(parser, "trunk_threads", trunk_threads_option())
  add_option(parser, "max_bad_fraction", max_bad_option())
  return parser


def _number(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise argparse.ArgumentTypeError(f"{text} is not a finite number")
  return value


def _divisor(text: str) -> float:
  value = _number(text)
  if not value:
    raise argparse.ArgumentTypeError("cannot divide by 0")
  return value


def run(argv: Sequence[str]) -> int:
  """Labels an image or a folder; returns the exit code."""
  if make_parser().parse_known_args(argv)[0].process_mode == FOLDER:
    separate_beam_options(make_parser(), argv)
    from beam_retrain.pipelines.compat import label_folder

    return label_folder.run(argv)
  flags = parse_flags(make_parser(), argv)
  if flags.output:
    raise InputError(f"{PROG}: --output is for --process_mode=2: a single image's line goes into the current folder.")
  if flags.directory_name and not flags.image:
    raise InputError(f"{PROG}: --directory_name is for --process_mode=2: add that, or give --image.")
  return label_single(flags)


class Graph(NamedTuple):
  """A graph, loaded and tried, and a label for each score."""

  data: bytes
  labels: list[str]
  call: GraphCall
  model: LoadedModel


def open_graph(flags: argparse.Namespace) -> Graph:
  """Loads and tries the graph, and reads its labels; reports peculiarities."""
  from beam_retrain.transforms.core.compat.digit_file import check_labels, parse_labels
  from beam_retrain.transforms.core.system.imports import load_tensorflow
  from beam_retrain.transforms.core.system.machine import Threads

  data, labels = read_file(flags.graph, "graph"), parse_labels(read_file(flags.labels, "labels"), flags.labels)
  load_tensorflow(Threads(flags.trunk_threads or 0).here)
  from beam_retrain.transforms.core.compat.frozen_graph import load_graph, try_out

  graph = parse_graph(data, flags.graph)
  call = find_call(
    graph,
    flags.graph,
    input_layer=flags.input_layer,
    output_layer=flags.output_layer,
    height=flags.input_height,
    width=flags.input_width,
    mean=flags.input_mean,
    std=flags.input_std,
    half_pixel_centers=_RESIZE[flags.resize],
  )
  model = load_graph(graph, call, flags.graph)
  classes, call = try_out(model, call, flags.graph)
  check_labels(labels, classes, labels_path=flags.labels, graph_path=flags.graph, output_layer=call.output_layer)
  notes = []
  if call.batch:
    count = "one image" if call.batch == 1 else f"{call.batch} images"
    notes.append(f"takes {count} at a time; --batch_size is ignored.")
  if call.half_pixel_centers and flags.resize == "auto":
    notes.append("was made by beam-retrain: images are resized as in its training (--resize=tf2).")
  for note in notes:
    say(f"{PROG}: {flags.graph} {note}", file=sys.stderr)
  return Graph(data, labels, call, model)


def read_file(path: str, flag: str) -> bytes:
  """Returns the bytes of a local or remote file."""
  if "://" in path:
    from beam_retrain.transforms.io import files

    if files.exists(path):
      return files.read_bytes(path)
  elif os.path.isfile(path):
    from beam_retrain.transforms.core.run.output_folder import check_file

    check_file(path)
    return Path(path).read_bytes()
  kind = "is a folder" if os.path.isdir(path) else "does not exist"
  name = "retrained_graph.pb" if flag == "graph" else "retrained_labels.txt"
  inside = (os.path.join(path, *folder, name) for folder in (("train",), ()))  # of `run`, of `train`
  file = next(filter(os.path.exists, inside), "")
  raise InputError(f"{path} {kind}: give {f'--{flag} {file}' if file else f'a file as --{flag}'}.")


def label_single(flags: argparse.Namespace) -> int:
  """Labels one image; prints and writes as the script did."""
  path = flags.image or f"{EXAMPLE_FOLDER}grace_hopper.jpg"
  encoded = read_file(path, "image")
  graph = open_graph(flags)
  from beam_retrain.transforms.core.compat.digit_file import FILE_NAME, QUARANTINE_NAME, best, single_line
  from beam_retrain.transforms.core.models.inference import infer_images
  from beam_retrain.transforms.core.records.quarantine import Quarantined
  from beam_retrain.transforms.core.records.schema import Image

  (item,) = infer_images(
    [Image(path, "", encoded)], graph.model, batch_size=max(graph.call.batch, 1), max_pixels=flags.max_pixels
  )
  if isinstance(item, Quarantined):
    from beam_retrain.transforms.shards.ledger import quarantine_csv

    local_files.write_text(FILE_NAME, "")
    local_files.write_text(QUARANTINE_NAME, quarantine_csv([item]))
    print(f"beam-retrain: {path}: {item.reason}: {item.detail} (listed in {QUARANTINE_NAME}).", file=sys.stderr)
    return ExitCode.DONE if flags.max_bad_fraction == 1 else ExitCode.TOO_MANY_BAD
  answer = best(item.outputs["scores"], graph.labels)
  print(f"Digit: {answer.label} Accuracy: {answer.percent}")
  local_files.write_text(FILE_NAME, single_line(path, answer))
  if os.path.exists(QUARANTINE_NAME):
    os.unlink(QUARANTINE_NAME)  # of an earlier image
  return ExitCode.DONE


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
