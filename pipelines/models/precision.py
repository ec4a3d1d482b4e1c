"""Chooses a trunk's variant: the requested one, or the best allowed."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from beam_retrain.pipelines.models.sample import IMAGES, check_agreement, decode, variant_entries
from beam_retrain.pipelines.models.trunk_sources import Trunk, prepare
from beam_retrain.pipelines.options.flags import LEAST_COSINE
from beam_retrain.transforms.bottlenecks.store import trunks_in
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.agreement import Agreement
from beam_retrain.transforms.core.models.inference import load_prepared_model
from beam_retrain.transforms.core.records.schema import TRUNK_FOLDER, Image
from beam_retrain.transforms.core.run.output_folder import find_info
from beam_retrain.transforms.core.runtimes.prepared import find_prepared, read_prepared_info
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
  is_bfloat16_faster,
  unsupported_reason,
)
from beam_retrain.transforms.core.system.extras import install_command
from beam_retrain.transforms.core.system.imports import nncf_fault
from beam_retrain.transforms.io import files

CALIBRATION_IMAGES = 128


@dataclasses.dataclass(frozen=True)
class Choice:
  trunk: Trunk
  check: Agreement | None = None  # for the variant of an earlier run, that run's
  why: str = ""  # it is another than the requested or automatic one

  def to_info(self) -> dict[str, str | dict[str, float]]:
    return variant_entries(self.trunk.info.variant, self.why, self.check)

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

  The variant of `earlier` bottlenecks, in folders, is preferred if the flags allow it. `sample`: number -> that many
  training images, or all if fewer; always the same for the same data.
  """
  for folder in earlier:
    if choice := _as_in(folder, trunk, precision, runtime):
      return choice
  reason = ""
  if runtime == AUTO:
    runtime, reason = _choose_runtime(trunk, precision)
  choice = _choose_precision(trunk, precision, runtime, sample)
  return dataclasses.replace(choice, why="; ".join(filter(None, [reason, choice.why])))


def _choose_runtime(trunk: Trunk, precision: str) -> tuple[str, str]:
  """Returns OpenVINO if it runs the trunk, else TensorFlow and the reason."""
  reason = unsupported_reason(OPENVINO, FLOAT32)
  if reason and precision == INT8:
    raise InputError(f"--precision int8 needs OpenVINO: {reason}.")
  if not reason and precision != INT8:
    try:
      prepare(trunk, Variant(OPENVINO, FLOAT32))
    except InputError:
      reason = "OpenVINO cannot run this one"
  if not reason:
    return OPENVINO, ""
  return TENSORFLOW, reason if has_openvino() else ""  # nothing to explain without OpenVINO


def _choose_precision(trunk: Trunk, precision: str, runtime: str, sample: Callable[[int], Sequence[Image]]) -> Choice:
  """Returns the requested precision, or bfloat16 if a check allows it."""
  wanted = BFLOAT16 if precision == AUTO else precision
  reason = unsupported_reason(runtime, wanted)
  if reason and precision not in (AUTO, FLOAT32):
    raise InputError(f"--precision {precision}: {reason}.")
  if precision == AUTO and not reason and not is_bfloat16_faster():
    reason = "not in bfloat16, which takes longer on this processor"
  in_float32 = prepare(trunk, Variant(runtime, FLOAT32))
  if precision == FLOAT32 or reason:
    return Choice(in_float32, why=reason.partition(": use")[0])
  try:
    if wanted == INT8:
      prepared = _calibrate(in_float32, sample(CALIBRATION_IMAGES))
    else:
      prepared = prepare(trunk, Variant(runtime, wanted))
  except InputError:
    if precision != AUTO:
      raise
    return Choice(in_float32, why="nothing of it can be computed in bfloat16")
  check = check_variant(prepared, in_float32, sample(IMAGES))
  if check and precision != AUTO and (fault := check.fault(wanted)):
    raise InputError(f"--precision {precision}: {fault}: use --precision auto or float32.")
  if precision == AUTO and check is None:
    return Choice(in_float32, why="not in bfloat16, as no image can be decoded to check it with")
  if precision == AUTO and check and check.least_cosine < LEAST_COSINE:
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
      stored = find_prepared(files.join(folder, TRUNK_FOLDER)) if is_copied else ""
      try:
        prepared = prepare(trunk, variant, stored=stored)
      except InputError:
        continue
      return Choice(prepared, _check_of(folder, info), f"as for the bottlenecks in {files.shown(folder)}")
  return None


def _check_of(folder: str, trunk: TrunkInfo) -> Agreement | None:
  info = find_info(folder, files)
  sample = info.execution.get("sample") if info and info.trunk == trunk else None
  return Agreement(**sample) if sample else None


def _calibrate(in_float32: Trunk, sample: Sequence[Image]) -> Trunk:
  if importlib.util.find_spec("nncf") is None:
    raise InputError(f"--precision int8 needs NNCF to calibrate it: {install_command('fast')}.")
  good = decode(in_float32.info.input_px, sample)
  if not good:
    raise InputError("--precision int8: no training image can be decoded for its calibration.")

  def pixels() -> np.ndarray:
    if fault := nncf_fault():
      raise InputError(
        f"--precision int8 needs NNCF, which cannot be imported ({fault}): pip install --force-reinstall nncf."
      )
    return np.stack([pixels for _, pixels in good])

  variant = Variant(OPENVINO, INT8, digest_of_sample([image.sha256 for image, _ in good]))
  return prepare(in_float32, variant, pixels)


def check_variant(prepared: Trunk, in_float32: Trunk, sample: Sequence[Image]) -> Agreement | None:
  """Compares a variant with float32 on the same runtime."""
  folders = [trunk.prepared_folder for trunk in (prepared, in_float32)]
  contents = [read_prepared_info(folder).encode() for folder in folders]  # has the files' digests
  load, load_exact = (partial(load_prepared_model, folder) for folder in folders)
  sampled = check_agreement(contents, load, load_exact, sample)
  return sampled.agreement if sampled else None
