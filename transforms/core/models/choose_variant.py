"""Chooses the variant in which a trained model's trunk runs."""

from __future__ import annotations

from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION, TRUNK_FOLDER
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER
from beam_retrain.transforms.core.runtimes.variant import AUTO, FLOAT32, TENSORFLOW, Variant

EXPORTED = Variant(TENSORFLOW, FLOAT32)
"""Variant of every exported model, whatever its head was trained on."""


class ServingVariant(NamedTuple):
  """How a model's trunk runs on this machine."""

  variant: Variant
  is_prepared: bool  # runs the model's own prepared trunk, then its head in numpy, instead of the exported model
  why: str = ""  # the model's own variant is not used, unless the user asked for another

  def __str__(self) -> str:
    return f"the trunk runs in {self.variant}{f', {self.why}' if self.why else ''}"


def choose_serving_variant(
  path: str, own: Variant, preprocessing: str, has_prepared: bool, precision: str = AUTO, runtime: str = AUTO
) -> ServingVariant:
  """Chooses between the model's own variant and the exported model's.

  Args:
    path: the model's folder, for errors.
    own: the variant that computed the model's bottlenecks.
    preprocessing: the model's `PREPROCESSING_VERSION`.
    has_prepared: whether `TRUNK_FOLDER` has a prepared trunk; models of earlier versions have none.
  """
  is_own = precision in (AUTO, own.precision) and runtime in (AUTO, own.runtime)
  is_exported = precision in (AUTO, FLOAT32) and runtime in (AUTO, TENSORFLOW)
  if not (is_own or is_exported):
    flags = (("precision", precision), ("runtime", runtime))
    wanted = " ".join(f"--{name} {value}" for name, value in flags if value != AUTO)
    raise InputError(
      f"the model in {path} was trained on bottlenecks in {own}, and its exported trunk is in"
      f" {EXPORTED}: {wanted} is neither; leave it out, or make bottlenecks with it and train on them."
    )
  why_not = _why_not_own(own, preprocessing, has_prepared) if is_own else ""
  if is_own and not why_not:
    return ServingVariant(own, is_prepared=True)
  if not is_exported:
    raise InputError(f"the model in {path} cannot run in {own} here: {why_not}; or use --precision auto.")
  is_fallback = is_own and own != EXPORTED
  return ServingVariant(EXPORTED, False, f"not in {own} as the model's bottlenecks: {why_not}" if is_fallback else "")


def _why_not_own(own: Variant, preprocessing: str, has_prepared: bool) -> str:
  if preprocessing != PREPROCESSING_VERSION:
    return "preprocessing has changed since"
  if not has_prepared:
    return f"the model's folder has no {TRUNK_FOLDER}/{PREPARED_FOLDER}"
  return own.unsupported_reason()
