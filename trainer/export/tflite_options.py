"""The options of `train` for TensorFlow Lite. No TensorFlow.

An int8 file is calibrated on images, but the trainer reads bottlenecks: their records name the images, `info.json` the
data set, and the images there are checked by their SHA-256.
"""

from __future__ import annotations

import dataclasses
import os

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.flags import option, positive_int

_DEFAULT_IMAGES = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfliteOptions:
  tflite_output_file: str | None = option(
    None,
    "also write the model for TensorFlow Lite: float images in, float scores out; its labels go into a file next to it",
    metavar="FILE",
  )
  tflite_int8_output_file: str | None = option(
    None,
    "the same with 8-bit weights and arithmetic in the trunk, a quarter of the size, in place of retrain.py's"
    " quantisation-aware head; its accuracy on the testing images is measured and printed",
    metavar="FILE",
  )
  tflite_calibration_input: str | None = option(
    None,
    "int8 only: where the images of the bottlenecks are (default: where `bottlenecks` read them)",
    metavar="DIR",
  )
  tflite_calibration_images: int | None = option(
    None,
    "int8 only: number of training images that decide the value ranges; the same data gives the same images"
    f" (default {_DEFAULT_IMAGES})",
    type=positive_int,
    metavar="N",
  )

  def resolve_tflite(self, bottlenecks_input: str) -> TfliteOptions:
    """Checks the options; fills in the defaults, images of `bottlenecks_input`.

    Raises InputError if options contradict each other, or a file cannot be written.
    """
    names = ("tflite_output_file", "tflite_int8_output_file")
    files = {name: path for name in names if (path := getattr(self, name)) is not None}
    for name in ("tflite_calibration_input", "tflite_calibration_images"):
      if getattr(self, name) is not None and self.tflite_int8_output_file is None:
        raise InputError(f"--{name} is only for an int8 file: add --tflite_int8_output_file, or leave it out.")
    for name, path in files.items():
      if os.path.isdir(path) or not os.path.basename(path):
        raise InputError(f"--{name} {path} is a folder: give a file, such as {os.path.join(path, 'model.tflite')}.")
    if len({os.path.realpath(labels_file(path)) for path in files.values()}) < len(files):
      raise InputError("--tflite_output_file and --tflite_int8_output_file would overwrite each other: use two names.")
    images = self.tflite_calibration_input or bottlenecks_input
    if self.tflite_int8_output_file and not os.path.exists(images):
      raise InputError(
        f"the images of the bottlenecks, which int8 is calibrated and measured on, are not in {images}, which is not a"
        " local folder or manifest: give their place with --tflite_calibration_input."
      )
    count = self.tflite_calibration_images or _DEFAULT_IMAGES
    return TfliteOptions(**files, tflite_calibration_input=images, tflite_calibration_images=count)


def labels_file(path: str) -> str:
  """Returns the path of the labels: `model.tflite` -> `model_labels.txt`."""
  return f"{os.path.splitext(path)[0]}_labels.txt"
