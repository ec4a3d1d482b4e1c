"""The stages of `retrain`, and how new bottlenecks replace old ones."""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from beam_retrain.pipelines.compat.retrain_options import PROG, work_dir
from beam_retrain.pipelines.options.flags import AUTO, given_precision
from beam_retrain.pipelines.options.stage_flags import Stage, make_request
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.requests.evaluation import EvaluateRequest
from beam_retrain.pipelines.stages import NEXT, OLD, Chain, digest_of_files, digests_of_trunk
from beam_retrain.trainer.request import TrainRequest
from beam_retrain.transforms.compat.text_bottlenecks import Texts, find_texts
from beam_retrain.transforms.core.errors import InputError, flag_names
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION
from beam_retrain.transforms.core.records.splits import LEGACY
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.output_folder import find_earlier, find_info, is_completed
from beam_retrain.transforms.core.runtimes.trunk_info import HUB_INCEPTION_V3, INCEPTION_V3
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.folders import ClassFolder

_NOW = "bottlenecks"
_OUTSIDE, _SAVED_MODEL = "train, outside", "saved_model"
_DISTORTIONS = ("random_crop", "random_scale", "random_brightness")
# In the order in which 0.4 digested them, so that its outputs are recognised.
_DECISIVE = (
  *("input", "retrain_names", "trunk", "trunk_weights", "trunk_input_px", "precision", "runtime"),
  *("testing_percentage", "validation_percentage", "split_hash", "flip_left_right", *_DISTORTIONS),
  *("distortion_copies", "distortion_seed", "on_leak", "bottleneck_dir"),
)
_TRAIN_FLAGS = (
  *("training_steps", "learning_rate", "batch_size", "eval_step_interval", "validation_batch_size", "seed"),
  *("final_tensor_name", "summaries_dir", "intermediate_output_graphs_dir", "intermediate_store_frequency"),
  "checkpoint_path",
)
_PATHS = ("summaries_dir", "intermediate_output_graphs_dir", "checkpoint_path")

# Flag of a stage -> flag of `retrain`.
_FLAG_NAMES = {"input": "image_dir", "output": "work_dir", "trunk": "tfhub_module"}
_TRAIN_NAMES = {"training_steps": "how_many_training_steps", "batch_size": "train_batch_size"}


class Stages:
  """Runs the stages in a folder that no other run uses."""

  def __init__(self, flags: argparse.Namespace, folders: Sequence[ClassFolder], options: Sequence[str], typed: str):
    """Reads the state of earlier runs; `options` are Beam's."""
    self._flags = flags
    self._work = Path(files.shown(work_dir(flags)))  # as messages show it
    self._for_job = {"max_bad_fraction": flags.max_bad_fraction, "beam_options": tuple(options)}
    self.chain = Chain(self._work, "retrain.json", typed)
    self._validate_work_dir()
    self.chain.end_renewal(_NOW)
    self._texts = find_own_texts(flags, folders)
    # An automatic variant is left out: it is that of the existing bottlenecks.
    trunk = [
      *(flags.tfhub_module, flags.trunk_input_px, *digests_of_trunk(flags.tfhub_module, flags.trunk_weights)),
      *given_precision(flags),
    ]
    self._trunk_state = hashlib.sha256(json.dumps([*trunk, PREPROCESSING_VERSION]).encode()).hexdigest()
    read = [digest_of_files(flags.image_dir), self._trunk_state, self._texts.fingerprint if self._texts else None]
    self._bottlenecks_state = self._bottlenecks().state(json.dumps(read))
    self._train = train_stage(train_request(flags, str(self._work / _NOW), str(self._work / "train")))
    self._train_state = self._train.state(self._bottlenecks_state)
    # Whether an earlier run trained the same, and all its outputs still exist.
    self.is_trained = (
      self.chain.keeps("train", self._train_state)
      # 0.4 knew what is outside by sizes and times.
      and self.chain.remembered(_OUTSIDE)
      in (self._digest_of_outside(_digest_of_contents), self._digest_of_outside(digest_of_files))
    )

  @property
  def predictions(self) -> str:
    return str(self._work / "evaluate" / "predictions.csv")

  def put_model(self, folder: str) -> bool:
    """Whether a run of this request put what a folder holds."""
    return self.chain.remembered(_SAVED_MODEL) == self._state_of_model(folder)

  def remember_model(self, folder: str) -> None:
    """Remembers what was put into `--saved_model_dir`, if it was given."""
    if folder:
      self.chain.remember(_SAVED_MODEL, self._state_of_model(folder))
      local_files.sync(str(self._work))

  def _state_of_model(self, folder: str) -> str:
    return hashlib.sha256(json.dumps([self._train_state, _digest_of_contents(folder)]).encode()).hexdigest()

  def bottlenecks(self) -> None:
    """Computes new bottlenecks; the old ones stay until they are complete."""
    # The trunk's state is separate: bottlenecks of another trunk are not reused.
    state = f"{self._bottlenecks_state} {self._trunk_state}"
    if self.chain.keeps(_NOW, state):
      say(f"{_NOW}: finished and unchanged, kept")
      return
    if not is_completed(str(self._work / _NOW)):
      self.chain.remember(_NOW, state)  # now: a later run may finish this folder, in this state
    with flag_names(_FLAG_NAMES):
      self.chain.renew(self._bottlenecks(), state, self._may_reuse())

  def _bottlenecks(self) -> Stage:
    texts = os.path.abspath(self._flags.bottleneck_dir) if self._texts else None
    return bottlenecks_stage(self._flags, str(self._work / _NOW), bottleneck_dir=texts, **self._for_job)

  def _may_reuse(self) -> bool:
    """Whether the last bottlenecks are of these texts, or of none."""
    info = find_info(str(self._work / _NOW))
    return self._texts is not None or (info is not None and "bottleneck_dir" not in info.settings)

  def _validate_work_dir(self) -> None:
    """Checks each stage's folder now, not when its turn comes."""
    with flag_names(_FLAG_NAMES):
      for folder, stage in ((_NOW, _NOW), (f"{_NOW}{NEXT}", _NOW), ("train", "train"), ("evaluate", "evaluate")):
        find_earlier(str(self._work / folder), stage, files)
    old = self._work / f"{_NOW}{OLD}"
    if old.exists() and not self.chain.remembered(old.name):
      raise InputError(f"{PROG}: {old} was not written by this command: move it away, or give another --work_dir.")

  def train(self) -> None:
    """Trains the head, unless it is already trained."""
    if self.chain.code != ExitCode.DONE:
      return
    if self.is_trained:
      say("train: finished and unchanged, kept")
      return
    self.chain.run(self._train)
    if self.chain.code == ExitCode.DONE:
      self.chain.remember("train", self._train_state)
      self.chain.remember(_OUTSIDE, self._digest_of_outside(_digest_of_contents))

  def evaluate(self) -> None:
    """Predicts the testing images, from their bottlenecks."""
    folders = {name: str(self._work / of) for name, of in (("model", "train"), ("input", _NOW), ("output", "evaluate"))}
    request = make_request(EvaluateRequest, split="testing", **folders, **self._for_job)
    self.chain.keep_or_run(Stage(request, ("split",)), after=self._train_state)

  def _digest_of_outside(self, digest_of: Callable[[str], str]) -> str:
    """Returns a digest of what is outside the folder of `train`."""
    flags = self._flags
    paths = [os.path.join(flags.summaries_dir, name) for name in ("train", "validation")]
    paths += glob.glob(f"{glob.escape(flags.checkpoint_path)}.*")
    if flags.intermediate_store_frequency:
      paths += glob.glob(os.path.join(glob.escape(flags.intermediate_output_graphs_dir), "intermediate_*.pb"))
    digests = [digest_of(os.path.abspath(path)) for path in sorted(paths)]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _digest_of_contents(path: str) -> str:
  """Returns the SHA-256 of a file or folder in hex."""
  found = files.walk(path) if os.path.isdir(path) else filter(os.path.exists, [path])
  digests = sorted((os.path.relpath(each, path), local_files.sha256(each)) for each in found)
  return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def bottlenecks_stage(flags: argparse.Namespace, output: str, **more: object) -> Stage:
  """Returns the stage `bottlenecks`; `more`: further request fields."""
  # Legacy splits hash the path as it was typed; everything else uses the absolute path.
  images = flags.image_dir if flags.split_hash == LEGACY else os.path.abspath(flags.image_dir)
  same = ("split_hash", "trunk_weights", "trunk_input_px", "distortion_copies", "distortion_seed", "on_leak")
  request = make_request(
    BottlenecksRequest,
    input=images,
    output=output,
    retrain_names=True,
    trunk=flags.tfhub_module,
    **{name: float(getattr(flags, name)) for name in ("testing_percentage", "validation_percentage")},
    **{name: value for name in ("precision", "runtime") if (value := getattr(flags, name)) != AUTO},
    **{name: getattr(flags, name) or None for name in ("flip_left_right", *_DISTORTIONS)},
    **{name: getattr(flags, name) for name in same},
    **more,
  )
  return Stage(request, _DECISIVE)


def train_request(flags: argparse.Namespace, bottlenecks_folder: str, output: str) -> TrainRequest:
  values = {name: getattr(flags, _TRAIN_NAMES.get(name, name)) for name in (*_TRAIN_FLAGS, "logging_verbosity")}
  values |= {name: os.path.abspath(values[name]) for name in _PATHS}
  return make_request(TrainRequest, input=bottlenecks_folder, output=output, preset="retrain", **values)


def train_stage(request: TrainRequest) -> Stage:
  return Stage(request, ("preset", *_TRAIN_FLAGS))


def find_own_texts(flags: argparse.Namespace, folders: Sequence[ClassFolder]) -> Texts | None:
  """Returns what `retrain.py` cached of these images with the same module."""
  if folders[0].split is not None:
    return None
  handles = [flags.tfhub_module, *([HUB_INCEPTION_V3] if flags.tfhub_module == INCEPTION_V3 else [])]
  try:
    texts = find_texts(flags.bottleneck_dir, {folder.prefix for folder in folders}, handles)
  except InputError:  # there are none, or they are of several other modules
    return None
  return texts if texts.is_of_trunk or not texts.module else None
