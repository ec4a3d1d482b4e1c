"""Bottlenecks in a program: computed from images, or as stored."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from beam_retrain.pipelines.library.images import AnyImage, as_list, embed_all
from beam_retrain.pipelines.models.trunk_sources import load_trunk, prepare
from beam_retrain.transforms.bottlenecks.store import read_shards
from beam_retrain.transforms.core.arguments import AnyPath, as_path, check_one_of, naming_arguments
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import LoadedModel, load_model
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.output_folder import find_output, read_info
from beam_retrain.transforms.core.run.stats import read_stats
from beam_retrain.transforms.core.runtimes.variant import BFLOAT16, FLOAT32, OPENVINO, TENSORFLOW, Variant
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.io import files

if TYPE_CHECKING:
  import pandas as pd
  import tensorflow as tf

SPLITS = (TRAINING, VALIDATION, TESTING)


@naming_arguments(trunk_weights="weights")
def embed(
  images: Iterable[AnyImage],
  trunk: AnyPath = "bundled",
  *,
  weights: AnyPath | None = None,
  precision: str = FLOAT32,
  runtime: str = TENSORFLOW,
) -> np.ndarray:
  """Runs images through a trunk: float32 [N, D].

  The trunk is loaded once per process, and cached on disk, as by `beam-retrain bottlenecks`. That one may choose
  bfloat16, and stored bottlenecks then differ from these: give `precision` likewise, or call `Model.embed`.

  Args:
    images: as of `Model.predict`.
    trunk: `bundled`, `inception_v3`, a TF Hub handle, a SavedModel folder, or `keras:InceptionV3`.
    weights: a local file, for `keras:` trunks.
    precision: `float32` or `bfloat16`, which not every processor has.
    runtime: `tensorflow`, or `openvino` if it is installed.

  Raises:
    InputError: an image or the trunk cannot be used.
  """
  check_one_of("precision", precision, (FLOAT32, BFLOAT16))
  check_one_of("runtime", runtime, (TENSORFLOW, OPENVINO))
  given = as_list(images)
  weights_path = as_path(weights, "weights") if weights else None
  model, dimensions = _load(as_path(trunk, "trunk"), weights_path, precision, runtime)
  return embed_all(given, model, dimensions)


@functools.lru_cache(maxsize=2)
def _load(handle: str, weights: str | None, precision: str, runtime: str) -> tuple[LoadedModel, int]:
  prepared = prepare(load_trunk(handle, weights), Variant(runtime, precision))
  with tempfile.TemporaryDirectory(prefix="beam-retrain-embed-") as folder:
    prepared.save(folder)
    return load_model(folder), prepared.info.dimensions


class StoredBottlenecks(NamedTuple):
  """Bottlenecks of images, in the order of their records.

  Attributes:
    vectors: float32 [N, D], as the trunk gives them, unscaled.
    labels: str [N].
    keys: str [N], the images' names relative to the data set.
  """

  vectors: np.ndarray
  labels: np.ndarray
  keys: np.ndarray

  def to_pandas(self) -> pd.DataFrame:
    """Returns columns `key` and `label`, str, and `0` to `D-1`, float32."""
    import pandas as pd

    names = pd.DataFrame({"key": self.keys, "label": self.labels})
    numbers = pd.DataFrame(self.vectors, columns=list(map(str, range(self.vectors.shape[1]))))
    return pd.concat([names, numbers], axis=1)

  def to_tf_dataset(self) -> tf.data.Dataset:
    """Returns a dataset of (float32 [D], label as a string)."""
    load_tensorflow()
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((self.vectors, np.char.encode(self.labels, "utf-8")))


@naming_arguments()
def load_bottlenecks(folder: AnyPath, split: str | None = None) -> StoredBottlenecks:
  """Loads what `beam-retrain bottlenecks` wrote: vectors, labels and keys.

  Args:
    folder: the output, finished, or that of `run`; may be remote.
    split: `training`, `validation` or `testing`; all by default. Validation images are those that `train` takes with
      the splits of the bottlenecks.

  Raises:
    InputError: the folder is no finished output of `bottlenecks`, or has no images of the split.
  """
  path = find_output(files.absolute(as_path(folder, "folder")), "bottlenecks", files)
  if split not in (None, *SPLITS):
    raise InputError(f"{split!r} is no split: give {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, or leave it out.")
  info = read_info(path, "bottlenecks", files)
  total = sum(counts.outputs for counts in read_stats(path, files).splits.values())
  vectors = np.empty((total, info.trunk.dimensions), np.float32)
  labels: list[str] = []
  keys: list[str] = []
  percentages = SplitPercentages.from_settings(info.settings)
  for of_image, stored in itertools.chain.from_iterable(read_shards(path, percentages)):
    if split in (None, of_image):
      vectors[len(keys)] = stored.vector
      labels.append(stored.label)
      keys.append(stored.key)
  if not keys:
    raise InputError(f"{path} has no {split or ''} images: it has {', '.join(read_stats(path, files).splits)}.")
  return StoredBottlenecks(vectors[: len(keys)], np.array(labels), np.array(keys))
