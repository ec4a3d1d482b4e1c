"""`beam-retrain run`: the whole chain, one folder per stage, keeping every stage that is finished and unchanged."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from beam_retrain.pipelines import datasets
from beam_retrain.pipelines.jobs.runner import DONE, GATE_MISSED, run_command
from beam_retrain.pipelines.options.arguments import (
  ArgumentParser,
  add_max_bad_fraction,
  fraction,
  parse_job,
  refuse_unreachable,
)
from beam_retrain.pipelines.options.precision import add_precision_flags, given_precision
from beam_retrain.pipelines.stages import Chain, digest_of_images, digests_of_trunk, given
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.idx import looks_like_idx

_DESCRIPTION = """\
Takes labelled images to a trained model and its evaluation:

  OUTPUT/data          the IDX files of --data digits or mnist
  OUTPUT/convert       images in class folders, and records (IDX data only)
  OUTPUT/bottlenecks   one vector per image, and the transform graph
  OUTPUT/train         the exported model, retrained_labels.txt, retrained_graph.pb, TensorBoard logs
  OUTPUT/evaluate      predictions.csv, per_label.csv, confusion_matrix.csv, metrics.json

A stage that is finished and unchanged is kept; a killed run goes on where it was."""

_EXAMPLE = """\
example
  beam-retrain run --data digits --trunk bundled --output output/digits
  beam-retrain run --data flower_photos --trunk inception_v3 --output output/flowers

Any Beam option may follow; it is handed to every stage that is a Beam job."""


def make_parser() -> argparse.ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain run", description=_DESCRIPTION, epilog=_EXAMPLE)
  parser.add_argument(
    "--data",
    default="digits",
    metavar="D",
    help="digits (scikit-learn's 1,797 real handwritten digits, offline), mnist (70,000, downloaded), a folder of"
    " IDX files or of class folders, or a CSV manifest, file_name,label[,split] (default: digits)",
  )
  parser.add_argument("--trunk", default="bundled", help="see `beam-retrain bottlenecks --help` (default: bundled)")
  parser.add_argument("--trunk_weights", metavar="FILE", help="local weights of a keras: trunk")
  add_precision_flags(parser)
  parser.add_argument(
    "--classes", type=int, default=10, metavar="N", help="number of classes of IDX data (default: 10)"
  )
  parser.add_argument("--preset", choices=("adam", "retrain"), help="see `beam-retrain train --help`")
  parser.add_argument(
    "--min_accuracy", type=fraction, metavar="A", help="gate: exit code 1 where the testing accuracy, 0..1, is below"
  )
  parser.add_argument("--output", type=_local_folder, required=True, metavar="DIR", help="folder for everything")
  add_max_bad_fraction(parser)
  return parser


def _local_folder(text: str) -> str:
  if not files.is_local(text):
    raise argparse.ArgumentTypeError(
      f"{text} is remote, where this command cannot keep its state; run the stages one by one, each can write there"
    )
  return text


def run(argv: Sequence[str]) -> int:
  """Runs the chain; returns the exit code of the first stage that does not return 0, or 0.

  Raises:
    InputError: something that the user gave cannot be used.
  """
  parser = make_parser()
  flags, options = parse_job(parser, argv)
  beam_flags = parser.parse_known_args(argv)[1]
  refuse_unreachable(options, flags.data)
  output = Path(flags.output)
  chain = Chain(output, "run.json")
  data = datasets.resolve(flags.data, str(output / "data"))
  state = digest_of_images(data)
  bad = [f"--max_bad_fraction={flags.max_bad_fraction}", *beam_flags]

  images = data
  if looks_like_idx(data):
    images = str(output / "convert")
    state = chain.keep_or_run("convert", [f"--input={data}", f"--classes={flags.classes}"], bad, after=state)
  trunk = [f"--trunk={flags.trunk}", *given("--trunk_weights", flags.trunk_weights), *given_precision(flags)]
  after = json.dumps([state, digests_of_trunk(flags.trunk, flags.trunk_weights)])
  state = chain.keep_or_run("bottlenecks", [f"--input={images}", *trunk], bad, after=after)
  chain.keep_or_run("train", [f"--input={output / 'bottlenecks'}", *given("--preset", flags.preset)], [], after=state)
  # Evaluation is never kept: it ends with the summary that people run this for, and its gates decide the exit code.
  chain.run(
    "evaluate",
    [
      f"--input={images}",
      f"--model={output / 'train'}",
      "--split=testing",
      *given("--min_accuracy", flags.min_accuracy),
      *bad,
    ],
  )
  if chain.code in (DONE, GATE_MISSED):
    stages = ("data", "convert", "bottlenecks", "train", "evaluate")
    found = ", ".join(stage for stage in stages if (output / stage).is_dir())
    print(f"\neverything lies in {output}: {found.replace('train', 'train (the model: train/saved_model)')}")
  return chain.code


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
