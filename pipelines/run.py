"""`beam-retrain run`: the whole chain, one folder per stage."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

from beam_retrain.pipelines import datasets
from beam_retrain.pipelines.evaluate import say_ends
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.jobs.runner import run_command
from beam_retrain.pipelines.models.photos import say_trunk_for_photos
from beam_retrain.pipelines.models.trunk_sources import check_handle
from beam_retrain.pipelines.options.engine import check_paths
from beam_retrain.pipelines.options.stage_flags import make_request
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.requests.convert import ConvertRequest
from beam_retrain.pipelines.requests.run import RunRequest
from beam_retrain.pipelines.stages import Chain, digest_of_files, digest_of_images, digests_of_trunk
from beam_retrain.trainer.request import TrainRequest
from beam_retrain.transforms.core.corrections import Corrections
from beam_retrain.transforms.core.errors import flag_names
from beam_retrain.transforms.core.log_file import keep_in
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.schema import CONFIG_FILE, PREPROCESSING_VERSION
from beam_retrain.transforms.core.run.config import to_toml
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.run_info import versions, without_secrets
from beam_retrain.transforms.core.runtimes.trunk_info import BUNDLED
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.idx import IdxSource, count_classes

_OF_TRUNK = ("trunk", "trunk_weights", "trunk_input_px", "precision", "runtime")

run = RunRequest.run


@holds_output
def execute(request: RunRequest) -> int:
  """Runs the chain; returns the first exit code that is not 0."""
  check_paths(request.pipeline_options(), request.data)
  command = shlex.join(["beam-retrain", request.command, *without_secrets(request.typed)])
  chain = Chain(Path(request.output), "run.json", command)
  chain.end_renewal(BottlenecksRequest.command)
  images = data = datasets.resolve(request.data, request.folder("data"))
  if data == request.data:  # before anything is written among the images
    request.validate_apart("data")
  # Unusable flags and images fail before a stage is announced.
  make_request(TrainRequest, input=data, output=request.output, **request.flags_of(TrainRequest)).validate()
  idx = make_request(ConvertRequest, input=data, output=request.output, **request.flags_of(ConvertRequest))
  source = find_source(
    data,
    idx.classes,
    retrain_names="retrain_names" in request.stage_flags,
    class_names=idx.class_names,
    transpose=idx.transpose,
  )
  of_bottlenecks = request.flags_of(BottlenecksRequest)
  stored = make_request(BottlenecksRequest, input=data, output=request.output, **{"trunk": BUNDLED, **of_bottlenecks})
  stored.split(source)
  check_handle(stored.trunk, stored.trunk_weights)
  corrected = []
  if corrections := str(request.stage_flags.get("corrections") or ""):
    parsed = Corrections.parse(files.read_lines(corrections), corrections)
    parsed.check_labels(source.labels, corrections, source.path)
    corrected = [parsed.digest]
  if stored.trunk == BUNDLED:
    say_trunk_for_photos(source, (request.command, *request.typed))
  keep_in(request.output, files)
  files.write_text(request.folder(CONFIG_FILE), to_toml(request.command, without_secrets(request.typed)))
  state = digest_of_images(data)
  if isinstance(source, IdxSource):
    images = request.folder("convert")
    if idx.class_names:
      state = json.dumps([state, digest_of_files(idx.class_names)])
    state = chain.keep_or_run(request.convert(data, count_classes(source.labels)), after=state)
  stage = request.bottlenecks(images)
  trunk, weights, *variant = (vars(stage.request)[name] for name in _OF_TRUNK)
  digests = digests_of_trunk(trunk, weights)
  of_trunk = hashlib.sha256(
    json.dumps([trunk, digests, variant, PREPROCESSING_VERSION, versions()]).encode()
  ).hexdigest()
  with flag_names({"input": "data"}):
    state = chain.keep_or_run(stage, json.dumps([state, digests, *corrected]), of_trunk)
  chain.keep_or_run(request.train(), after=state)
  # Evaluation always runs: it prints the summary, and its gates decide the exit code.
  was_done = chain.code == ExitCode.DONE
  chain.run(request.evaluate(images), has_result=True)
  if was_done and chain.code in (ExitCode.DONE, ExitCode.GATE_MISSED):
    names = ("data", "convert", "bottlenecks", "train", "evaluate")
    stages = [name for name in names if os.path.isdir(request.folder(name))]
    shown = ", ".join(stages).replace("train", "train (the model: train/saved_model)")
    say(f"everything is in {request.output}: {shown}")
    say_ends(request.folder("evaluate"), request.output, images)
  return chain.code


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
