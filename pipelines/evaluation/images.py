"""The images that an evaluation scores, or their stored bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from beam_retrain.pipelines.models.trained import Model, check_labels, choose_splits, shared_percentages
from beam_retrain.pipelines.options.flags import IdxFlags, report_notes
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.output_folder import find_info, read_info
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.records import RecordsSource


class Images(NamedTuple):
  """The images to evaluate, or their stored bottlenecks."""

  source: Source
  splits: tuple[str, ...]
  percentages: SplitPercentages | None  # how a source without its own splits is split; None: not at all

  @property
  def empty_message(self) -> str:
    return f"{self.source.path} has no images of the split {' or '.join(self.splits)}: give another --input or --split."


def find_images(path: str, flags: IdxFlags, model: Model) -> Source:
  """Returns the images of `--input`, with a model's labels."""
  source = find_source(
    path,
    None if flags.class_names else model.idx_classes,
    min_classes=1,
    retrain_names=model.retrain_names,
    class_names=flags.class_names,
    transpose=flags.transpose,
  )
  report_notes(source)
  return source


def holds_bottlenecks(folder: str) -> bool:
  """Whether the images to evaluate are stored bottlenecks."""
  info = find_info(folder, files)
  return info is not None and info.stage == "bottlenecks"


def open_bottlenecks(folder: str, model: Model) -> RecordsSource:
  """Returns stored bottlenecks; raises InputError unless by the model's trunk."""
  stored, wanted = read_info(folder, "bottlenecks", files).trunk, model.info.trunk
  if stored.fingerprint != wanted.fingerprint:
    raise InputError(
      f"the bottlenecks in {folder} are of another trunk ({stored.handle}, {stored.fingerprint[:12]}) than the"
      f" model in {model.path} ({wanted.handle}, {wanted.fingerprint[:12]}): evaluate images, or run"
      " `beam-retrain bottlenecks` with the model's trunk."
    )
  return RecordsSource(folder)


def choose_images(source: Source, split: str, models: Sequence[Model]) -> Images:
  """Returns the images of `--split`, whose labels all models must know."""
  for model in models:
    check_labels(source, model)
  splits, percentages = choose_splits(source, split, shared_percentages(models), models)
  source.plan(splits, percentages)  # raises for missing inputs before anything is changed
  return Images(source, splits, percentages)
