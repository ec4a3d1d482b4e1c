"""What `train` is asked for in TensorFlow Lite: the flags, checked before any work. No TensorFlow.

Calibration needs images, and the trainer has bottlenecks. A bottleneck record names its image, and the bottlenecks'
`info.json` the data set it came from, so the images are found again there, and known again by their SHA-256: nobody
has to prepare a folder of them, and the sample is of training images by construction. `--tflite_calibration_input` is
for data that has moved.
"""

from __future__ import annotations

import argparse
import os
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.cli import positive_int
from beam_retrain.transforms.core.run.run_info import RunInfo

_DEFAULT_IMAGES = 200
_FILES = ("tflite_output_file", "tflite_int8_output_file")
_OF_CALIBRATION = ("tflite_calibration_input", "tflite_calibration_images")


class TfliteRequest(NamedTuple):
  """Attributes:
  float_file: where the float file goes; None: nowhere.
  int8_file: where the int8 file goes; None: nowhere.
  images: folder, or CSV manifest, in which the bottlenecks' images are found again; needed for int8 only.
  calibration_images: how many of them the int8 file's value ranges are taken from.
  """

  float_file: str | None
  int8_file: str | None
  images: str
  calibration_images: int


def add_tflite_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that `tflite_request` reads."""
  parser.add_argument(
    "--tflite_output_file",
    metavar="FILE",
    help="write the model for TensorFlow Lite too: float images in, float scores out, labels in a file beside it",
  )
  parser.add_argument(
    "--tflite_int8_output_file",
    metavar="FILE",
    help="likewise with a trunk of 8-bit weights and arithmetic, a quarter of the size, for retrain.py's"
    " quantisation-aware head; its accuracy on the testing images is measured and told",
  )
  parser.add_argument(
    "--tflite_calibration_input",
    metavar="DIR",
    help="int8 only: where the images are that the bottlenecks were made of (default: where `bottlenecks` read them)",
  )
  parser.add_argument(
    "--tflite_calibration_images",
    type=positive_int,
    metavar="N",
    help="int8 only: training images, the same for the same data, that the value ranges are taken from"
    f" (default {_DEFAULT_IMAGES})",
  )


def tflite_request(args: argparse.Namespace, info: RunInfo) -> TfliteRequest:
  """Reads the flags.

  Args:
    args: with the flags of `add_tflite_flags`.
    info: the bottlenecks' `info.json`.

  Raises:
    InputError: flags that do not go together, or a file that cannot be written.
  """
  for name in _OF_CALIBRATION:
    if getattr(args, name) is not None and args.tflite_int8_output_file is None:
      raise InputError(f"--{name} is for an int8 file: give --tflite_int8_output_file too, or leave it out.")
  for name in _FILES:
    path = getattr(args, name)
    if path is not None and (os.path.isdir(path) or not os.path.basename(path)):
      raise InputError(f"--{name} {path} is a folder: give a file, such as {os.path.join(path, 'model.tflite')}.")
  asked = [labels_file(path) for name in _FILES if (path := getattr(args, name)) is not None]
  if len({os.path.realpath(path) for path in asked}) < len(asked):
    raise InputError("--tflite_output_file and --tflite_int8_output_file would overwrite each other: give two names.")
  images = args.tflite_calibration_input or str(info.settings.get("input", ""))
  if args.tflite_int8_output_file and not os.path.exists(images):
    raise InputError(
      f"the images that the bottlenecks were made of are not in {images}, which is no local folder or manifest:"
      " give with --tflite_calibration_input where they are: int8 is calibrated and measured on them."
    )
  return TfliteRequest(
    args.tflite_output_file,
    args.tflite_int8_output_file,
    images,
    args.tflite_calibration_images or _DEFAULT_IMAGES,
  )


def labels_file(path: str) -> str:
  """Returns where the labels of a TensorFlow Lite file go: `model.tflite` -> `model_labels.txt`."""
  return f"{os.path.splitext(path)[0]}_labels.txt"
