"""Checks the trunk that is about to be exported, before the training."""

from __future__ import annotations

import os
import sys
from functools import partial

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.agreement import Agreement, generated_images, measure
from beam_retrain.transforms.core.models.inference import load_float32, load_model
from beam_retrain.transforms.core.models.saved_model import check_trunk
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER, REWRITE, check_prepared


def check_exportable(folder: str, info: RunInfo) -> None:
  """Checks the trunk of bottlenecks, whose `info.json` is given.

  A SavedModel without a digest, of versions before 0.5, is run beside the prepared trunk on generated images.

  Raises:
    InputError: it is not the trunk that computed them, or differs too much from it.
  """
  precision = info.trunk.variant.precision
  sample = info.execution.get("sample")
  if sample and (fault := Agreement(**sample).fault(precision)):
    raise InputError(f"the bottlenecks cannot stand for their trunk: {fault}: make them with --precision float32.")
  is_checked = check_trunk(folder, info.trunk)
  if is_prepared := os.path.isdir(os.path.join(folder, PREPARED_FOLDER)):
    check_prepared(os.path.join(folder, PREPARED_FOLDER), info.trunk)
  if is_checked:
    return
  if not is_prepared or info.trunk.variant.unsupported_reason():
    say(f"{folder} was written by an earlier version, so its SavedModel cannot be checked", file=sys.stderr)
    return
  measured = measure(partial(load_model, folder), partial(load_float32, folder), generated_images(), None)
  if measured and (fault := measured.agreement.fault(precision)):
    raise InputError(f"the SavedModel in {folder} is not the trunk that made the bottlenecks: {fault}: {REWRITE}.")
