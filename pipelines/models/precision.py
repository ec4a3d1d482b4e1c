"""Chooses a trunk's variant: the requested one, or the best allowed."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from beam_retrain.pipelines.models.sample import IMAGES, decode, digest_of_check, embed
from beam_retrain.pipelines.models.trunk_sources import Trunk, prepare
from beam_retrain.pipelines.options.flags import LEAST_COSINE
from beam_retrain.transforms.bottlenecks.store import trunks_in
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.statistics import cosines
from beam_retrain.transforms.core.models.inference import load_prepared_model
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.run.run_info import find_info
from beam_retrain.transforms.core.runtimes.prepared import find_prepared
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.core.runtimes.variant import (
  AUTO,
  BFLOAT16,
  FLOAT32,
  INT8,
  OPENVINO,
  TENSORFLOW,
  Variant,
  digest_of_sample,
  has_openvino,
  unsupported_reason,
)
from beam_retrain.transforms.core.system.imports import nncf_fault
from beam_retrain.transforms.io import cache, files

CALIBRATION_IMAGES = 128


@dataclasses.dataclass(frozen=True)
class Check:
  """Comparison of a variant with float32 on the same runtime.

  Attributes:
    least_cosine: smallest cosine between an image's two bottlenecks, -1..1.
  """

  images: int
  least_cosine: float

  def __str__(self) -> str:
    return f"on {self.images:,} of the images the smallest cosine with float32 is {self.least_cosine:.6f}"


@dataclasses.dataclass(frozen=True)
class Choice:
  """The chosen variant.

  Attributes:
    check: None if nothing was compared; for the variant of an earlier run, that run's.
    why: reason for a variant other than the requested or automatic one; else empty.
  """

  trunk: Trunk
  check: Check | None = None
  why: str = ""

  def to_info(self) -> dict[str, Any]:
    """Returns entries of `execution` in `info.json`."""
    found: dict[str, Any] = {"runtime": self.trunk.info.variant.runtime, "precision": self.trunk.info.variant.precision}
    if self.why:
      found["why"] = self.why
    if self.check:
      found["sample"] = dataclasses.asdict(self.check)
    return found

  def describe(self) -> str:
    parts = [f"the trunk runs in {self.trunk.info.variant}", self.why, str(self.check) if self.check else ""]
    return "; ".join(filter(None, parts))


def choose_variant(
  trunk: Trunk,
  precision: str,
  runtime: str,
  sample: Callable[[int], Sequence[Image]],
  earlier: Sequence[str] = (),
) -> Choice:
  """Returns the prepared trunk in the requested or best variant.

  Args:
    sample: number -> that many training images, or all if fewer; always the same for the same data.
    earlier: folders of bottlenecks to reuse; their variant is preferred if the flags allow it.

  Raises:
    InputError: this machine cannot run the requested variant, or the runtime cannot run this trunk.
  """
  for folder in earlier:
    if kept := _as_in(folder, trunk, precision, runtime):
      return kept
  if runtime != AUTO:
    return _choose(trunk, precision, runtime, sample)
  why_not = unsupported_reason(OPENVINO, FLOAT32)
  if precision == INT8:
    if why_not:
      raise InputError(f"--precision int8 needs OpenVINO: {why_not}.")
    return _choose(trunk, precision, OPENVINO, sample)
  if not why_not:
    try:
      prepare(trunk, Variant(OPENVINO, FLOAT32))
    except InputError:
      why_not = "OpenVINO cannot run this one"
  if not why_not:
    return _choose(trunk, precision, OPENVINO, sample)
  chosen = _choose(trunk, precision, TENSORFLOW, sample)
  reason = why_not if has_openvino() else ""  # nothing to explain without OpenVINO
  return dataclasses.replace(chosen, why="; ".join(filter(None, [reason, chosen.why])))


def _choose(trunk: Trunk, precision: str, runtime: str, sample: Callable[[int], Sequence[Image]]) -> Choice:
  plain = Variant(runtime, FLOAT32)
  if precision == FLOAT32:
    return Choice(prepare(trunk, plain))
  if precision == AUTO:
    return _choose_precision(trunk, runtime, sample)
  if why_not := unsupported_reason(runtime, precision):
    raise InputError(f"--precision {precision}: {why_not}.")
  if precision == INT8:
    prepared = _calibrate(trunk, runtime, sample(CALIBRATION_IMAGES))
  else:
    prepared = prepare(trunk, Variant(runtime, precision))
  return Choice(prepared, check_variant(prepared, prepare(trunk, plain), sample(IMAGES)))


def _choose_precision(trunk: Trunk, runtime: str, sample: Callable[[int], Sequence[Image]]) -> Choice:
  in_float32 = prepare(trunk, Variant(runtime, FLOAT32))
  if why_not := unsupported_reason(runtime, BFLOAT16):
    return Choice(in_float32, why=why_not.partition(": use")[0])
  try:
    prepared = prepare(trunk, Variant(runtime, BFLOAT16))
  except InputError:
    return Choice(in_float32, why="nothing of it can be computed in bfloat16")
  check = check_variant(prepared, in_float32, sample(IMAGES))
  if check is None:
    return Choice(in_float32, why="not in bfloat16, as no image can be decoded to check it with")
  if check.least_cosine < LEAST_COSINE:
    return Choice(in_float32, why=f"not in bfloat16, as {check}, below {LEAST_COSINE}")
  return Choice(prepared, check)


def _as_in(folder: str, trunk: Trunk, precision: str, runtime: str) -> Choice | None:
  """Returns the variant of a folder's bottlenecks, if it fits this trunk."""
  for info in trunks_in(folder):
    variant = info.variant
    is_of_trunk = info.base_fingerprint == trunk.info.base_fingerprint
    would_do = precision in (AUTO, variant.precision) and runtime in (AUTO, variant.runtime)
    if is_of_trunk and would_do and not variant.unsupported_reason():
      # The calibration images of int8 are not available.
      is_copied = variant.precision == INT8 and files.is_local(folder)
      stored = find_prepared(files.join(folder, "trunk")) if is_copied else ""
      try:
        prepared = prepare(trunk, variant, stored=stored)
      except InputError:
        continue
      return Choice(prepared, _check_of(folder, info), f"as for the bottlenecks in {files.shown(folder)}")
  return None


def _check_of(folder: str, trunk: TrunkInfo) -> Check | None:
  info = find_info(folder, files)
  sample = info.execution.get("sample") if info else None
  return Check(**sample) if info and sample and info.trunk == trunk else None


def _calibrate(trunk: Trunk, runtime: str, sample: Sequence[Image]) -> Trunk:
  if importlib.util.find_spec("nncf") is None:
    raise InputError("--precision int8 needs NNCF to calibrate it: pip install 'beam-retrain[fast]'.")
  if fault := nncf_fault():
    raise InputError(
      f"--precision int8 needs NNCF, which cannot be imported ({fault}): pip install --force-reinstall nncf."
    )
  good = decode(load_prepared_model(prepare(trunk, Variant(runtime, FLOAT32)).prepared_folder), sample)
  if not good:
    raise InputError("--precision int8: no training image can be decoded for its calibration.")
  variant = Variant(runtime, INT8, digest_of_sample([image.sha256 for image, _ in good]))
  return prepare(trunk, variant, np.stack([pixels for _, pixels in good]))


def check_variant(prepared: Trunk, in_float32: Trunk, sample: Sequence[Image]) -> Check | None:
  """Compares a variant with float32; None if no image can be used.

  Caches the result for the next run over the same images.
  """
  digest = digest_of_check([prepared.info.fingerprint, in_float32.info.fingerprint], sample)
  if kept := cache.read_source(digest):
    return Check(**kept)
  ours, exact = (embed(load_prepared_model(trunk.prepared_folder), sample) for trunk in (prepared, in_float32))
  if not exact:
    return None
  # A bottleneck that is not finite, unlike float32's, counts as the worst cosine.
  least = min(
    float(cosines(ours[key][None], vector[None])[0]) if key in ours else -1.0 for key, vector in exact.items()
  )
  check = Check(len(exact), least)
  cache.write_source(digest, dataclasses.asdict(check))
  return check
