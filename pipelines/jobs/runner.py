"""Claims the output, runs a job and reports: exit codes and messages."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from beam_retrain.pipelines.engines.dataflow import describe_built_job
from beam_retrain.pipelines.engines.findings import explain
from beam_retrain.pipelines.engines.runners import choose_runner, is_by_default, runner_of, start_sooner
from beam_retrain.pipelines.jobs.capture import capture_output
from beam_retrain.pipelines.jobs.forked_workers import forked_workers
from beam_retrain.pipelines.jobs.local_runner import local_runner, raise_on_worker_death
from beam_retrain.pipelines.jobs.progress import Work, shard_progress
from beam_retrain.pipelines.jobs.thread_runner import ThreadRunner
from beam_retrain.transforms.core.errors import InputError, user_sentence
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE, REPORTS_FOLDER
from beam_retrain.transforms.core.run.exit_codes import ExitCode, run_command
from beam_retrain.transforms.core.run.output_folder import claim_folder, write_labels
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system import scratch
from beam_retrain.transforms.core.system.listing import left_out
from beam_retrain.transforms.core.system.locks import forget_claims
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.beam_internals import remembered_inspections
from beam_retrain.transforms.io.counters import LINKS_UP, counts_of

__all__ = ["ExitCode", "claim_output", "exit_code", "run_command", "run_pipeline"]


@remembered_inspections()
def run_pipeline(
  build: Callable[[beam.Pipeline], None],
  options: PipelineOptions,
  *,
  stage: str,
  shards_folder: str,
  others: Sequence[Work] = (),
  processes: int = 1,
) -> beam.runners.runner.PipelineResult:
  """Builds a pipeline, runs it and waits for it, printing its progress.

  Raises InputError if a worker did, on whatever engine, and Exception for any other failure of the job.

  Args:
    shards_folder: where it writes its shards.
    others: further long parts of it.
    processes: result of `default_processes`, for a job that can use several.
  """
  runner = runner_for(options, processes)
  pipeline = beam.Pipeline(runner, options=options)
  if describe_built_job(options):
    forget_claims()  # it runs when this command has ended
  build(pipeline)
  try:
    with contextlib.ExitStack() as stack:
      stack.enter_context(raise_on_worker_death())
      terminal = stack.enter_context(capture_output())
      if processes > 1:  # before there are threads
        pipeline.runner = stack.enter_context(forked_workers(processes, options))
      stack.enter_context(shard_progress([Work(stage, shards_folder), *others], terminal))
      if runner is None:  # job servers delete theirs when the process ends
        stack.enter_context(scratch.outside())
      result = pipeline.run()
      result.wait_until_finish()
  except Exception as error:
    sentence = user_sentence(error)
    if sentence is not None:
      raise InputError(sentence) from error
    if known := explain(str(error)):
      raise InputError(f"{known[0]}: {known[1]}; `beam-retrain doctor` with the same flags tells more.") from error
    if "KeyboardInterrupt" in str(error):  # raised in a thread of Beam's, which made it a step's error
      raise KeyboardInterrupt from error
    raise
  _say_links_up(result)
  return result


def runner_for(options: PipelineOptions, processes: int = 1) -> beam.runners.runner.PipelineRunner | None:
  """Returns the runner of a job; None: the options' own.

  `processes`: see `run_pipeline`.
  """
  if processes == 1 and is_by_default(options):
    return ThreadRunner()
  choose_runner(options)
  start_sooner(options)
  if processes > 1:
    options.view_as(DirectOptions).direct_num_workers = processes
  return local_runner(options) if runner_of(options) == "fnapirunner" else None


def _say_links_up(result: beam.runners.runner.PipelineResult) -> None:
  with contextlib.suppress(Exception):  # without metrics; each runner raises its own kind
    if line := left_out({}, list(counts_of(result, LINKS_UP))):
      say(line, file=sys.stderr)


def claim_output(
  output: str,
  info: RunInfo,
  *,
  owned: Sequence[str],
  owned_folders: Sequence[str] = (),
  shards_folder: str = "",
  has_labels: bool = True,
) -> None:
  """Claims an output folder; writes `info.json` and, by default, `labels.txt`.

  The shards are in `output/shards_folder`; for the others see `claim_folder`, which raises InputError.
  """
  work_folder = f"{shards_folder}/{REPORTS_FOLDER}".lstrip("/")
  claim_folder(output, info, owned=owned, owned_folders=owned_folders, work_folder=work_folder, files=files)
  if has_labels:
    write_labels(output, info.labels, files)


def exit_code(
  stats: Stats,
  output: str,
  max_bad_fraction: float,
  quarantine_file: str = QUARANTINE_FILE,
  *,
  gate_missed: bool = False,
) -> ExitCode:
  """Reports quarantined inputs; returns the exit code of a finished job.

  Too many bad inputs, above `max_bad_fraction`, 0..1, come before a gate that was missed.
  """
  code = ExitCode.GATE_MISSED if gate_missed else ExitCode.DONE
  if not stats.quarantined:
    return code
  listed = files.shown(files.join(output, quarantine_file))
  if stats.bad_fraction <= max_bad_fraction:
    reasons = ", ".join(f"{count} {reason}" for reason, count in stats.reasons.items())
    say(f"{stats.quarantined} of {stats.inputs} inputs left out ({reasons}), listed in {listed}")
    return code
  print(f"beam-retrain: {stats.describe_bad(listed)} and run the command again.", file=sys.stderr)
  return ExitCode.TOO_MANY_BAD
