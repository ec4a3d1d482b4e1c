"""`beam-retrain retrain`: what `retrain.py` did, with its flags."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from beam_retrain.pipelines.compat.retrain_options import check_flags, make_parser, work_dir
from beam_retrain.pipelines.compat.retrain_outputs import check_outputs, check_saved_model, hold_outputs, put_outputs
from beam_retrain.pipelines.compat.retrain_stages import Stages, train_request
from beam_retrain.pipelines.jobs.runner import run_command
from beam_retrain.pipelines.options.request import parse_job
from beam_retrain.transforms.core.compat.final_accuracy import final_accuracy, judge
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.cli import ExitCode
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.folders import ClassFolder, count_files, find_class_folders, list_class_folders

__all__ = ["make_parser", "run"]

_FEW = 20
_MANY = 2**27 - 1  # retrain.py's MAX_NUM_IMAGES_PER_CLASS
_SAYS_WARNINGS, _SAYS_ALL = ("DEBUG", "INFO", "WARN"), ("DEBUG", "INFO")


def run(argv: Sequence[str]) -> int:
  """Runs the stages; returns the first exit code that is not 0."""
  parser = make_parser()
  flags, _ = parse_job(parser, argv)
  beam_flags = parser.parse_known_args(argv)[1]
  check_flags(flags)
  # Its input does not exist yet; everything else is checked before any work.
  train_request(flags, ".", ".").validate()
  folders = find_folders(flags.image_dir)
  check_outputs(flags)
  if flags.logging_verbosity in _SAYS_WARNINGS:
    for warning in warnings_of(flags, folders):
      print(f"WARNING: {warning}", file=sys.stderr)
  with hold_outputs(flags), contextlib.ExitStack() as quiet:
    if flags.logging_verbosity not in _SAYS_ALL:
      quiet.enter_context(contextlib.redirect_stdout(quiet.enter_context(open(os.devnull, "w"))))
    stages = Stages(flags, folders, beam_flags)
    check_saved_model(flags, stages.is_trained)
    stages.bottlenecks()
    stages.train()
    stages.evaluate()
    if stages.chain.code == ExitCode.DONE:
      put_outputs(flags)
      _tell(flags, stages.predictions)
  return stages.chain.code


def find_folders(image_dir: str) -> list[ClassFolder]:
  """Returns the class folders with images in them.

  Raises:
    InputError: there are fewer than two, or two of one label.
  """
  if not os.path.isdir(image_dir):
    raise InputError(f"--image_dir {image_dir} is not a folder: give a folder of folders of images, one per label.")
  return find_class_folders(image_dir, retrain_names=True)


def warnings_of(flags: argparse.Namespace, folders: Sequence[ClassFolder]) -> list[str]:
  """Returns `retrain.py`'s warnings, and one for `--model_dir`."""
  warnings = []
  if flags.model_dir is not None:
    warnings.append(
      f"--model_dir {flags.model_dir} does nothing, as in retrain.py, which ignored it: --tfhub_module names the trunk."
    )
  used = {folder.prefix for folder in folders}
  for folder in list_class_folders(flags.image_dir):
    if folder.prefix not in used:
      warnings.append(f"Folder {folder.prefix} has no images named .jpg, .jpeg or .png: it is left out.")
  for folder in folders:
    images = count_files(folder).images
    if images < _FEW:
      warnings.append(f"Folder {folder.prefix} has less than {_FEW} images, which may cause issues.")
    elif images > _MANY:
      warnings.append(f"Folder {folder.prefix} has more than {_MANY} images.")
  return warnings


def _tell(flags: argparse.Namespace, predictions: str) -> None:
  print(
    f"the graph is in {flags.output_graph}, its labels in {flags.output_labels}, the rest in"
    f" {files.shown(work_dir(flags))}"
  )
  accuracy, total = final_accuracy(predictions, flags.test_batch_size, flags.seed)
  print(f"Final test accuracy = {100 * accuracy:.1f}% (N={total})")
  if flags.print_misclassified_test_images:
    print("=== MISCLASSIFIED TEST IMAGES ===")
    for image in judge(predictions, flags.test_batch_size, flags.seed):
      if image.actual != image.predicted:
        for _ in range(image.times):
          print(f"{os.path.join(flags.image_dir, image.key):>70s}  {image.predicted}")


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
