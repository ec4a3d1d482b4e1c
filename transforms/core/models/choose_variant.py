"""Chooses the variant of a trained model's trunk: that of the model's bottlenecks, or the exported model's."""

from __future__ import annotations

from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER
from beam_retrain.transforms.core.runtimes.variant import AUTO, FLOAT32, TENSORFLOW, Variant

EXPORTED = Variant(TENSORFLOW, FLOAT32)
"""That of the exported model, whatever its head was trained on."""
TRUNK_FOLDER = "trunk"
"""In a model's folder: holds the trunk as it was prepared for the model's bottlenecks."""


class ServingVariant(NamedTuple):
  """How a model's trunk is run here.

  Attributes:
    variant: of the bottlenecks that it computes.
    is_prepared: whether the model's own prepared trunk is run, then its head in numpy; else the exported model.
    why: why it is not the model's own variant though the user did not ask for another; else empty.
  """

  variant: Variant
  is_prepared: bool
  why: str = ""

  def __str__(self) -> str:
    return f"the trunk runs in {self.variant}{f', {self.why}' if self.why else ''}"


def choose_serving_variant(
  path: str, own: Variant, preprocessing: str, has_prepared: bool, precision: str = AUTO, runtime: str = AUTO
) -> ServingVariant:
  """Returns how a model's trunk is to be run.

  Args:
    path: the model's folder, for the errors.
    own: the variant that computed the model's bottlenecks.
    preprocessing: the version that the model was trained with, see `PREPROCESSING_VERSION`.
    has_prepared: whether a prepared trunk is in its `TRUNK_FOLDER`; models of earlier versions have none.
    precision: `--precision`.
    runtime: `--runtime`.

  Raises:
    InputError: the flags name neither the model's own variant nor the exported model's, or this machine lacks it.
  """
  is_own = precision in (AUTO, own.precision) and runtime in (AUTO, own.runtime)
  is_exported = precision in (AUTO, FLOAT32) and runtime in (AUTO, TENSORFLOW)
  if not (is_own or is_exported):
    flags = (("precision", precision), ("runtime", runtime))
    asked = " ".join(f"--{name} {value}" for name, value in flags if value != AUTO)
    raise InputError(
      f"the model in {path} was trained on bottlenecks in {own}, and its exported trunk is in"
      f" {EXPORTED}: {asked} is neither; leave it out, or make bottlenecks with it and train on them."
    )
  why_not = _why_not_own(own, preprocessing, has_prepared) if is_own else ""
  if is_own and not why_not:
    return ServingVariant(own, is_prepared=True)
  if not is_exported:
    raise InputError(f"the model in {path} cannot run in {own} here: {why_not}; or use --precision auto.")
  is_fallback = is_own and own != EXPORTED
  return ServingVariant(
    EXPORTED, False, f"not in {own} as for the model's bottlenecks: {why_not}" if is_fallback else ""
  )


def _why_not_own(own: Variant, preprocessing: str, has_prepared: bool) -> str:
  if preprocessing != PREPROCESSING_VERSION:
    return "images are preprocessed otherwise today"
  if not has_prepared:
    return f"the model's folder has no {TRUNK_FOLDER}/{PREPARED_FOLDER}"
  return own.unsupported_reason()
