"""The flags of `convert`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.flags import IdxFlags, classes_option, corrections_option
from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.transforms.core.images.formats.info import ALPHAS
from beam_retrain.transforms.core.images.formats.jpeg import DEFAULT_QUALITY
from beam_retrain.transforms.core.records.output_names import FORMATS, JPG, TFRECORD
from beam_retrain.transforms.core.run.flags import max_bad_option, max_pixels_option, option, whole_number

_DESCRIPTION = """\
Turns images into JPEG or PNG files and records that every other command reads: the IDX files of MNIST (or of any data
set in that format), or any folder or manifest of images, in whatever format Pillow reads: TIFF, WebP, AVIF, JPEG 2000,
ICO, PSD, ..., and HEIC (with the extra [heic]). Images are turned upright by their EXIF orientation and
brought to sRGB by their colour profile; transparent ones are laid on white or black; of 16-bit grey the upper 8 bits
are kept. Of several pages or frames, the first is taken. A plain JPEG stays as it is, byte for byte.

reads    INPUT/{train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or gzip, also spelled train-images.idx3-ubyte, and as
         EMNIST and QMNIST name them: emnist-letters-test-images-idx3-ubyte.gz, qmnist-test-labels-idx2-int; or any
         other input of `bottlenecks`, or a folder of images, which are then one class of its name
writes   OUTPUT/{training,testing}/LABEL/NAME.jpg, or OUTPUT/LABEL/NAME.jpg if the input has no splits; NAME is that
         of the image, or its position in the IDX file
         OUTPUT/records/SPLIT-SSSSS-of-NNNNN.tfrecord
         OUTPUT/labels.txt, stats.json, quarantine.csv, info.json and, last, COMPLETED

Where two images would have one name (a.tif and a.png of a class), both get a suffix. An input without splits is split
later, by a hash of the images' names, into the same splits as the input itself."""

_EXAMPLE = """\
example
  beam-retrain convert --input mnist --output mnist_jpg
  beam-retrain convert --input photos --output photos_upright --formats png,tfrecord

A killed run resumes when it is started again; a finished one is replaced. On this machine it uses a process for each
core. Any Beam option may follow, for example --direct_num_workers=1 for one process."""


def _formats(text: str) -> tuple[str, ...]:
  names = [name.strip() for name in text.split(",")]
  if unknown := [name for name in names if name not in FORMATS]:
    raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}")
  return tuple(name for name in FORMATS if name in names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertRequest(JobRequest, IdxFlags):
  command: ClassVar[str] = "convert"
  module: ClassVar[str] = "beam_retrain.pipelines.convert"
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE

  paths: ClassVar[tuple[str, ...]] = ("corrections",)

  first: ClassVar[tuple[str, ...]] = ("input", "output", "formats", "quality", "classes", "class_names", "transpose")

  input: str = option(help="folder of images or of the four IDX files, or a CSV manifest", metavar="DIR")
  output: str = option(help="a new or empty folder, or an earlier output", metavar="DIR")
  formats: tuple[str, ...] = option(
    (JPG, TFRECORD),
    f"formats to write, any of {', '.join(FORMATS)} (default: jpg,tfrecord); records hold PNG if png is among"
    " them and jpg is not, else JPEG",
    type=_formats,
    metavar="LIST",
    separator=",",
  )
  quality: int = option(
    DEFAULT_QUALITY,
    "quality of JPEGs, 1 to 100 (default: %(default)d, Pillow's)",
    type=whole_number(1, 100),
    metavar="Q",
  )
  alpha: str = option(
    ALPHAS[0], "colour behind transparent pixels, white or black (default: %(default)s)", choices=ALPHAS
  )
  classes: int | None = classes_option()
  max_pixels: int = max_pixels_option()
  corrections: str | None = corrections_option()
  max_bad_fraction: float = max_bad_option()
