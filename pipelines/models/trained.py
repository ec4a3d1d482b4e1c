"""Trained models, checked before an evaluation begins."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

from beam_retrain.pipelines.options.flags import check_split_hash
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.choose_variant import TRUNK_FOLDER
from beam_retrain.transforms.core.models.head import HEAD_FILE
from beam_retrain.transforms.core.records.schema import ALL, LABELS_FILE, TESTING, TRAINING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.run_info import RunInfo, read_info, read_labels
from beam_retrain.transforms.core.runtimes.prepared import CARD_FILE, PREPARED_FOLDER
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source


class Model:
  """A finished output folder of `train`.

  Attributes:
    labels: class index -> label.

  Raises:
    InputError: the folder is missing, unfinished, or of another command.
  """

  def __init__(self, path: str):
    self.path = path
    self.info: RunInfo = read_info(path, "train", files)
    self.labels = read_labels(path, files)

  @property
  def saved_model(self) -> str:
    return files.join(self.path, "saved_model")

  @functools.cached_property
  def has_head(self) -> bool:
    """Whether the head is also exported alone, as since 0.2.0."""
    return files.exists(files.join(self.path, HEAD_FILE))

  @property
  def head(self) -> str:
    """Path of the head alone.

    Raises:
      InputError: the model is older than 0.2.0.
    """
    path = files.join(self.path, HEAD_FILE)
    if not self.has_head:
      raise InputError(f"{self.path} has no {HEAD_FILE}, which `beam-retrain train` writes since 0.2.0: train again.")
    return path

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
  def has_splits(self) -> bool:
    """Whether its training data named the splits: no hash reproduces them.

    False for older models, which do not record it.
    """
    return bool(self.info.has_splits)

  @functools.cached_property
  def percentages(self) -> SplitPercentages:
    """How its images were split.

    Raises:
      InputError: a later version's rule split them.
    """
    try:
      return SplitPercentages.from_settings(self.info.settings)
    except ValueError as error:
      raise InputError(f"{self.path} was made by another version of beam-retrain: {error}: train it again.") from error

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256, 64 hex digits, of names and contents that an evaluation reads."""
    digest = hashlib.sha256()
    others = (files.stat(files.join(self.path, name)) for name in (HEAD_FILE, LABELS_FILE))
    prepared = files.match_in(self.trunk, "**") if self.has_prepared else []
    for stat in [*files.match_in(self.saved_model, "**"), *prepared, *filter(None, others)]:
      digest.update(stat.path.removeprefix(self.path).encode() + b"\0")
      digest.update(bytes.fromhex(files.sha256(stat.path)))
    return digest.hexdigest()


def check_labels(source: Source, model: Model) -> None:
  """Checks that the model knows each label of the images."""
  unknown = [label for label in source.labels if label not in model.labels]
  if unknown:
    raise InputError(
      f"labels differ: {source.path} has {_listed(unknown)}, the model in {model.path} knows {_listed(model.labels)}:"
      " remove or rename the unknown labels, or train on them."
    )


def check_same_labels(model: Model, candidate: Model) -> None:
  """Checks that two models know the same labels, in any order."""
  if only := sorted(set(model.labels) ^ set(candidate.labels)):
    raise InputError(
      f"labels differ: only one of the models in {model.path} and {candidate.path} knows {_listed(only)}: give a"
      " candidate that was trained on the same labels."
    )


def _listed(labels: Sequence[str]) -> str:
  more = f" and {len(labels) - 10} more" if len(labels) > 10 else ""
  return ", ".join(map(repr, labels[:10])) + more


def choose_splits(
  source: Source, split: str, percentages: SplitPercentages, models: Sequence[Model] = ()
) -> tuple[tuple[str, ...], SplitPercentages | None]:
  """Returns the splits to plan, and how to split unsplit sources.

  Args:
    split: `auto`, `testing` or `all`.
    percentages: those of the model's bottlenecks, so that no training image is tested on.

  Raises:
    InputError: the model's testing images cannot be identified in the source.
  """
  if source.has_splits:
    return ((TRAINING, TESTING) if split == "all" else (TESTING,)), None
  if split == "testing":
    if given := [model.path for model in models if model.has_splits]:
      raise InputError(
        f"{source.path} does not say which images are for testing, unlike the images that {given[0]} was trained on:"
        " give the images with their splits, or use --split all."
      )
    check_split_hash(source, percentages, "use --split all")
    return (TESTING,), percentages
  return (ALL,), None


def shared_percentages(models: Sequence[Model]) -> SplitPercentages:
  """Returns a split whose testing images no model was trained on.

  Raises:
    InputError: there is none, as their splits are unrelated.
  """
  found = {model.percentages: model for model in models}
  if all(percentages.legacy_root is None for percentages in found):
    return min(found, key=lambda percentages: percentages.testing)  # the smallest testing split is in all others
  if len(found) > 1:
    first, second, *_ = found.values()
    raise InputError(
      f"the models in {first.path} and {second.path} were trained on different splits (--split_hash): testing images of"
      " one may be training images of the other; use --split all, or train both on the same split."
    )
  return next(iter(found))


def split_settings(percentages: SplitPercentages | None) -> dict[str, Any]:
  """Returns the splits' entries in the settings of an evaluation."""
  if percentages is not None and percentages.legacy_root is not None:
    return percentages.to_settings()
  return {"testing_percentage": percentages.testing if percentages else None}


def which_images(splits: Sequence[str]) -> str:
  """Returns, for example, `the testing images`."""
  return "all images" if tuple(splits) == (ALL,) else f"the {' and '.join(sorted(splits))} images"
