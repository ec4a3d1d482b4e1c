"""Trains and exports a planned job. Needs TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from beam_retrain.trainer.export import output_files, tflite
from beam_retrain.trainer.export.exporter import Exporter
from beam_retrain.trainer.export.output_files import TrainMetrics
from beam_retrain.trainer.fit import training
from beam_retrain.trainer.fit.callbacks import EpochLine, TrainingCallback
from beam_retrain.trainer.fit.data import Bottlenecks, load_bottlenecks, load_transform
from beam_retrain.trainer.fit.schedule import FullBatch, Schedule
from beam_retrain.trainer.fit.tensorboard import Summaries
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.agreement import Agreement, generated_images, measure
from beam_retrain.transforms.core.models.inference import load_float32, load_model
from beam_retrain.transforms.core.models.saved_model import check_trunk
from beam_retrain.transforms.core.printing import detail, say
from beam_retrain.transforms.core.records.schema import METRICS_FILE, TESTING, TRAINING, TRUNK_FOLDER, VALIDATION
from beam_retrain.transforms.core.records.trained_on import TRAINED_ON_FILE
from beam_retrain.transforms.core.run.output_folder import claim_folder, complete_folder
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER, REWRITE, check_prepared
from beam_retrain.transforms.core.system import local_files

if TYPE_CHECKING:
  from beam_retrain.trainer.task import Job


def train_and_export(job: Job) -> TrainMetrics:
  """Trains the head and writes the model; returns its metrics.

  Raises InputError if the bottlenecks cannot be used, or the training diverges.
  """
  trunk, options = job.info.trunk, job.tflite
  trunk_folder = os.path.join(job.bottlenecks, TRUNK_FOLDER)
  _check_exportable(trunk_folder, job.info)
  transform = load_transform(os.path.join(job.bottlenecks, "transform"), job.labels, trunk.dimensions)
  data = load_bottlenecks(
    job.bottlenecks,
    labels=job.labels,
    dimensions=trunk.dimensions,
    percentages=job.percentages,
    transform=transform,
    memory_limit=job.request.memory_limit,
  )
  calibration: list[bytes] = []
  if options.tflite_int8_output_file:  # before the training, so that a missing image is reported at once
    images, count = str(options.tflite_calibration_input), options.tflite_calibration_images or 0
    calibration = tflite.draw_calibration(job.bottlenecks, job.percentages, images, count)
  schedule = job.request.make_schedule()
  _print_data(job, data)
  info = _describe(job, schedule, data)
  resumes = claim_folder(job.output, info, owned=output_files.OWNED, work_folder=output_files.CHECKPOINTS)
  if resumes:
    say(f"resuming the training of an earlier run in {job.request.output}")
  exporter = Exporter(
    trunk_folder=trunk_folder,
    transform=transform,
    labels=job.labels,
    input_px=trunk.input_px,
    dimensions=trunk.dimensions,
    final_tensor_name=job.request.output_name,
  )
  head, rounds = training.train(
    data,
    schedule,
    seed=job.request.seed,
    checkpoint=os.path.join(job.output, output_files.CHECKPOINTS, "head.npz"),
    callbacks=_make_callbacks(job, schedule, exporter, resumes, len(data.rows[VALIDATION])),
  )
  scores = training.evaluate_splits(head, data, (TRAINING, VALIDATION, TESTING), schedule)
  flat = exporter.write(head, job.output)
  if trained_on := data.trained_on:
    local_files.write_bytes(os.path.join(job.output, TRAINED_ON_FILE), trained_on.encode())
  lite = tflite.write_tflite(
    options, exporter, flat, output=job.output, bottlenecks=job.bottlenecks, calibration=calibration
  )
  counts = {split: dict(zip(data.labels, data.counts(split).tolist(), strict=True)) for split in scores}
  metrics = TrainMetrics(len(data.labels), job.request.seed, rounds, scores, lite, counts)
  local_files.write_text(os.path.join(job.output, METRICS_FILE), metrics.to_json())
  complete_folder(job.output)
  return metrics


def _check_exportable(folder: str, info: RunInfo) -> None:
  """Raises InputError unless the SavedModel is that of the bottlenecks.

  A SavedModel without a digest, of versions before 0.5, is run beside the prepared trunk on generated images.
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


def _print_data(job: Job, data: Bottlenecks) -> None:
  counts = ", ".join(f"{len(data.rows[split]):,} {split}" for split in (TRAINING, VALIDATION, TESTING))
  trunk = job.info.trunk
  say(f"{counts} images of {len(job.labels)} labels, through the trunk {trunk.handle}")
  detail(f"{trunk.dimensions:,} numbers each, in {trunk.variant}")
  if variants := len(data.learned_rows) - len(data.rows[TRAINING]):
    say(f"and {variants:,} distorted variants of the training images")


def _describe(job: Job, schedule: FullBatch | Schedule, data: Bottlenecks) -> RunInfo:
  request, settings = job.request, job.info.settings
  return describe_run(
    output_files.STAGE,
    {
      "preset": request.preset,
      **schedule.to_settings(),
      **request.option_settings(),
      "seed": request.seed,
      **job.percentages.to_settings(),
      "bottlenecks_sha256": data.sha256,
    },
    request.to_argv(),
    labels=job.labels,
    trunk=dataclasses.replace(job.info.trunk, bottlenecks_request=job.info.request),
    preprocessing=settings.get("preprocessing"),
    retrain_names=bool(settings.get("retrain_names")),
    has_splits=bool(job.info.has_splits),
  )


def _make_callbacks(
  job: Job, schedule: FullBatch | Schedule, exporter: Exporter, resumes: bool, validation_images: int
) -> list[TrainingCallback]:
  options = job.request
  callbacks: list[TrainingCallback] = []
  if not (options.is_quiet or options.eval_step_interval):
    callbacks.append(EpochLine(sys.stdout, schedule))
  logs = options.summaries_dir or os.path.join(job.output, output_files.LOGS)
  callbacks.append(Summaries(logs, is_every_step=bool(options.eval_step_interval), resumes=resumes))
  return [*callbacks, *options.make_callbacks(exporter, validation_images, sys.stdout)]
