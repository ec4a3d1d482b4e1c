"""Trained models and their trunks, for evaluations."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence

from beam_retrain.pipelines.models.execution import Execution
from beam_retrain.pipelines.models.trunk_sources import Trunk
from beam_retrain.pipelines.options.flags import check_split_hash
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.errors import DamagedInputError, InputError, flag, listed
from beam_retrain.transforms.core.metrics.training_log import TrainingLog
from beam_retrain.transforms.core.models.choose_variant import choose_serving_variant
from beam_retrain.transforms.core.models.head import HEAD_FILE
from beam_retrain.transforms.core.records.schema import (
  ALL,
  LABELS_FILE,
  METRICS_FILE,
  SAVED_MODEL_FOLDER,
  TESTING,
  TRAINING,
  TRUNK_FOLDER,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.trained_on import TRAINED_ON_FILE, TrainedOn
from beam_retrain.transforms.core.run.output_folder import find_output, read_info, read_labels
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.runtimes.prepared import CARD_FILE, PREPARED_FOLDER
from beam_retrain.transforms.core.runtimes.variant import AUTO
from beam_retrain.transforms.core.system.small_files import RUN_AGAIN, read_small
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.idx import IdxSource, count_classes


class Model:
  """A finished output of `train`; `labels`: class index -> label."""

  def __init__(self, path: str):
    self.path = find_output(path, "train", files)
    self.info: RunInfo = read_info(self.path, "train", files)
    self.labels = read_labels(self.path, files)

  @property
  def saved_model(self) -> str:
    return files.join(self.path, SAVED_MODEL_FOLDER)

  @functools.cached_property
  def has_head(self) -> bool:
    """Whether the head is also exported alone, as since 0.2.0."""
    return files.exists(files.join(self.path, HEAD_FILE))

  @property
  def head(self) -> str:
    """Path of the head alone."""
    path = files.join(self.path, HEAD_FILE)
    if not self.has_head:
      raise InputError(f"{self.path} has no {HEAD_FILE}, which `beam-retrain train` writes since 0.2.0: train again.")
    return path

  @functools.cached_property
  def trained_on(self) -> str | None:
    """Path of its `trained_on.bin`, checked; older models have none."""
    path = files.join(self.path, TRAINED_ON_FILE)
    if not files.exists(path):
      return None
    TrainedOn.decode(files.read_bytes(path), path)
    return path

  @functools.cached_property
  def training(self) -> TrainingLog:
    """Returns how it was trained; empty if it does not say."""
    try:
      return read_small(files.join(self.path, METRICS_FILE), TrainingLog.from_json, RUN_AGAIN, files.read_bytes)
    except DamagedInputError:  # the report goes without
      return TrainingLog()

  @property
  def trunk(self) -> str:
    """Folder of its prepared trunk; older models have none."""
    return files.join(self.path, TRUNK_FOLDER)

  @functools.cached_property
  def has_prepared(self) -> bool:
    return files.exists(files.join(self.trunk, PREPARED_FOLDER, CARD_FILE))

  @property
  def preprocessing(self) -> str:
    return self.info.preprocessing or ""

  @property
  def retrain_names(self) -> bool:
    """Whether its class folders were read as `retrain.py` read them."""
    return bool(self.info.retrain_names)

  @property
  def idx_classes(self) -> int | None:
    """Number of labels if they are 0, 1, ..., else None."""
    return count_classes(self.labels)

  @functools.cached_property
  def percentages(self) -> SplitPercentages:
    """Returns the percentages by which its images were split."""
    try:
      return SplitPercentages.from_settings(self.info.settings)
    except ValueError as error:
      raise InputError(f"{self.path} was made by another version of beam-retrain: {error}: train it again.") from error

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256, 64 hex digits, of names and contents that an evaluation reads."""
    digest = hashlib.sha256()
    others = (files.stat(files.join(self.path, name)) for name in (HEAD_FILE, LABELS_FILE, TRAINED_ON_FILE))
    prepared = files.match_in(self.trunk, "**") if self.has_prepared else []
    for stat in [*files.match_in(self.saved_model, "**"), *prepared, *filter(None, others)]:
      digest.update(stat.path.removeprefix(self.path).encode() + b"\0")
      digest.update(bytes.fromhex(files.sha256(stat.path)))
    return digest.hexdigest()


class ModelTrunk:
  """A model's trunk, in the variant that runs here; see `choose_serving_variant`."""

  def __init__(self, model: Model, precision: str = AUTO, runtime: str = AUTO):
    own = model.info.trunk
    self.model = model
    self.serving = choose_serving_variant(
      model.path, own.variant, model.preprocessing, model.has_prepared, precision, runtime
    )
    self.info = own.with_variant(self.serving.variant)

  @property
  def fingerprint(self) -> str:
    """Key of its stored bottlenecks, 64 hex digits."""
    return self.info.fingerprint

  @property
  def prepared(self) -> Trunk | None:
    return Trunk(self.info, prepared_folder=self.model.trunk) if self.serving.is_prepared else None

  def to_scores(self, execution: Execution, max_pixels: int) -> ImageModelHandler:
    if self.serving.is_prepared:
      return execution.handler(self.model.trunk, max_pixels, head=self.model.head)
    return execution.handler(self.model.saved_model, max_pixels)

  def to_bottlenecks(self, execution: Execution, max_pixels: int) -> ImageModelHandler:
    if self.serving.is_prepared:
      return execution.handler(self.model.trunk, max_pixels)
    return execution.handler(self.model.saved_model, max_pixels, trunk_only=True)


def check_labels(source: Source, model: Model) -> None:
  """Checks that the model knows each label of the images."""
  unknown = [label for label in source.labels if label not in model.labels]
  if unknown:
    naming = f", name them with {flag('class_names')}" if isinstance(source, IdxSource) else ""
    raise source.find_wrapped() or InputError(
      f"labels differ: {source.path} has {listed(unknown)}, the model in {model.path} knows {listed(model.labels)}:"
      f" remove or rename the unknown labels{naming}, or train on them."
    )


def check_same_labels(model: Model, candidate: Model) -> None:
  """Checks that two models know the same labels, in any order."""
  if only := sorted(set(model.labels) ^ set(candidate.labels)):
    raise InputError(
      f"labels differ: only one of the models in {model.path} and {candidate.path} knows {listed(only)}: give a"
      " candidate that was trained on the same labels."
    )


def choose_splits(
  source: Source, split: str, percentages: SplitPercentages, models: Sequence[Model] = ()
) -> tuple[tuple[str, ...], SplitPercentages | None]:
  """Returns the splits to plan, and how to split unsplit sources.

  Args:
    split: `auto`, `testing` or `all`.
    percentages: those of the model's bottlenecks, so that no training image is tested on.
  """
  if source.has_splits:
    return ((TRAINING, TESTING) if split == "all" else (TESTING,)), None
  if split == "testing":
    for model in models:
      if model.info.has_splits:  # no hash reproduces them; models before 0.3 do not record it
        raise InputError(
          f"{source.path} does not say which images are for testing, unlike the images that {model.path} was trained"
          " on: give the images with their splits, or use --split all."
        )
    check_split_hash(source, percentages, "use --split all")
    return (TESTING,), percentages
  return (ALL,), None


def shared_percentages(models: Sequence[Model]) -> SplitPercentages:
  """Returns a split whose testing images no model was trained on."""
  by_split = {model.percentages: model for model in models}
  if all(percentages.legacy_root is None for percentages in by_split):
    return min(by_split, key=lambda percentages: percentages.testing)  # the smallest testing split is in all others
  if len(by_split) > 1:
    first, second, *_ = by_split.values()
    raise InputError(
      f"the models in {first.path} and {second.path} were trained on different splits (--split_hash): testing images of"
      " one may be training images of the other; use --split all, or train both on the same split."
    )
  return next(iter(by_split))


def split_settings(percentages: SplitPercentages | None) -> Mapping[str, float | str | None]:
  """Returns the splits' entries in the settings of an evaluation."""
  if percentages is not None and percentages.legacy_root is not None:
    return percentages.to_settings()
  return {"testing_percentage": percentages.testing if percentages else None}


def which_images(splits: Sequence[str]) -> str:
  """Returns, for example, `the testing images`."""
  return "all images" if tuple(splits) == (ALL,) else f"the {' and '.join(sorted(splits))} images"
