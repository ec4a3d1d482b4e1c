"""In which kind a trained model's trunk is run: as it made the model's bottlenecks, or as the exported model has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION
from beam_retrain.transforms.core.runtimes.kinds_here import why_not_here
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER
from beam_retrain.transforms.core.runtimes.variant import FLOAT32, TENSORFLOW, TrunkKind, read_kind

AUTO = "auto"
EXPORTED = TrunkKind(TENSORFLOW, FLOAT32)
"""What the exported model is of, whatever its head was trained on."""
TRUNK_FOLDER = "trunk"
"""In a model's folder: holds the trunk as it was prepared for the model's bottlenecks."""


class ModelKind(NamedTuple):
  """How a model's trunk is run here.

  Attributes:
    kind: of the bottlenecks that it gives.
    is_prepared: whether the model's own prepared trunk is run, and then its head in numpy; else the exported model is.
    why: why it is not the model's own kind though nobody asked for another; empty: it is, or somebody did.
  """

  kind: TrunkKind
  is_prepared: bool
  why: str = ""

  def describe(self) -> str:
    """Returns what a user is told: one line, without what it was checked on."""
    return f"the trunk runs in {self.kind}{f', {self.why}' if self.why else ''}"


def choose_model_kind(
  path: str, info: Mapping[str, Any], has_prepared: bool, precision: str = AUTO, runtime: str = AUTO
) -> ModelKind:
  """Returns how a model's trunk is to be run.

  Args:
    path: the model's folder, for the errors.
    info: the contents of its `info.json`.
    has_prepared: whether a prepared trunk is in its `TRUNK_FOLDER`; models of earlier versions have none.
    precision: `--precision`.
    runtime: `--runtime`.

  Raises:
    InputError: what was asked for is neither the model's own kind nor the exported model's, or cannot be had here.
  """
  own = read_kind(info["trunk"])
  is_own = precision in (AUTO, own.precision) and runtime in (AUTO, own.runtime)
  is_exported = precision in (AUTO, FLOAT32) and runtime in (AUTO, TENSORFLOW)
  if not (is_own or is_exported):
    given = (("precision", precision), ("runtime", runtime))
    asked = " ".join(f"--{name} {value}" for name, value in given if value != AUTO)
    raise InputError(
      f"the model in {path} was trained on bottlenecks in {own}, and its exported trunk is in"
      f" {EXPORTED}: {asked} is neither; leave it out, or make bottlenecks with it and train on them."
    )
  why_not = _why_not_own(own, info, has_prepared) if is_own else ""
  if is_own and not why_not:
    return ModelKind(own, is_prepared=True)
  if not is_exported:
    raise InputError(f"the model in {path} cannot run in {own} here: {why_not}; or use --precision auto.")
  was_wanted = is_own and own != EXPORTED
  told = f"not in {own} as for the model's bottlenecks: {why_not}"
  return ModelKind(EXPORTED, False, told if was_wanted else "")


def _why_not_own(own: TrunkKind, info: Mapping[str, Any], has_prepared: bool) -> str:
  if info["preprocessing"] != PREPROCESSING_VERSION:
    return "images are preprocessed otherwise today"
  if not has_prepared:
    return f"the model's folder has no {TRUNK_FOLDER}/{PREPARED_FOLDER}"
  return why_not_here(own.runtime, own.precision)
