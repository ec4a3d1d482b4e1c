"""The stages of `retrain`: their arguments, what is kept of an earlier run, how new bottlenecks replace old ones."""

from __future__ import annotations

import argparse
import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from beam_retrain.pipelines.compat.retrain_options import PROG, work_dir
from beam_retrain.pipelines.jobs.output_dir import find_earlier
from beam_retrain.pipelines.jobs.runner import DONE
from beam_retrain.pipelines.models.trunk_sources import HUB_INCEPTION_V3, INCEPTION_V3
from beam_retrain.pipelines.options.precision import given_precision
from beam_retrain.pipelines.stages import Chain, digest_of_files, digests_of_trunk, given, state_of
from beam_retrain.transforms.compat.text_bottlenecks import Texts, find_texts
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION
from beam_retrain.transforms.core.records.splits import LEGACY
from beam_retrain.transforms.core.run.run_info import find_info, is_completed
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.folders import ClassFolder

_NOW, _NEXT, _OLD = "bottlenecks", "bottlenecks.next", "bottlenecks.old"
_OUTSIDE = "train, outside"
_DISTORTIONS = ("random_crop", "random_scale", "random_brightness")


class Stages:
  """One after the other, in a folder that no other run works in.

  Attributes:
    chain: of the stages; says whether one has failed.
    is_trained: whether an earlier run trained what this one would train, and all that it left is still there.
  """

  def __init__(self, flags: argparse.Namespace, folders: Sequence[ClassFolder], beam_flags: Sequence[str]):
    """Looks at what is there.

    Args:
      flags: the command's.
      folders: the images'.
      beam_flags: for the stages that are Beam jobs.

    Raises:
      InputError: something else is where a stage would write.
    """
    self._flags = flags
    self._work = Path(files.shown(work_dir(flags)))  # as what the stages say of it is to be read
    self._more = [f"--max_bad_fraction={flags.max_bad_fraction}", *beam_flags]
    self.chain = Chain(self._work, "retrain.json")
    self._refuse_what_is_not_ours()
    self._end_replacement()
    texts = find_own_texts(flags, folders)
    # Without the kind where it is auto: then it is that of the bottlenecks that are there.
    trunk = [
      *(flags.tfhub_module, flags.trunk_input_px, *digests_of_trunk(flags.tfhub_module, flags.trunk_weights)),
      *given_precision(flags),
    ]
    self._trunk_state = hashlib.sha256(json.dumps([*trunk, PREPROCESSING_VERSION]).encode()).hexdigest()
    self._bottlenecks_flags = bottlenecks_flags(flags)
    self._has_texts = texts is not None
    if texts:
      self._bottlenecks_flags.append(f"--bottleneck_dir={os.path.abspath(flags.bottleneck_dir)}")
    read = [digest_of_files(flags.image_dir), self._trunk_state, texts.fingerprint if texts else None]
    self._bottlenecks_state = state_of(_NOW, self._bottlenecks_flags, json.dumps(read))
    self._train_state = state_of("train", train_flags(flags), self._bottlenecks_state)
    self.is_trained = (
      self.chain.is_kept("train", self._train_state) and self.chain.remembered(_OUTSIDE) == self._digest_of_outside()
    )

  @property
  def predictions(self) -> str:
    """Path of the predictions for the testing images."""
    return str(self._work / "evaluate" / "predictions.csv")

  def bottlenecks(self) -> None:
    """Runs new images through the trunk; the bottlenecks of an earlier run are there until all new ones are."""
    # The trunk's state stands apart in it: bottlenecks of another trunk are not reused.
    state = f"{self._bottlenecks_state} {self._trunk_state}"
    if self.chain.is_kept(_NOW, state):
      print(f"{_NOW}: finished and unchanged, kept")
      return
    folder = _NEXT if is_completed(str(self._work / _NOW)) else _NOW
    reuse = [f"--reuse={self._work / _NOW}"] if folder == _NEXT and self.is_reusable() else []
    self.chain.remember(folder, state)  # before: the folder is not finished now, so if it is once, it is of this state
    with in_our_flags():
      self.chain.run(_NOW, [*self._bottlenecks_flags, *reuse, *self._more], folder)
    if self.chain.code == DONE and folder == _NEXT:
      self._end_replacement()
      print(f"{_NOW}: in {self._work / _NOW} now, in place of the earlier ones")

  def is_reusable(self) -> bool:
    """Says whether the bottlenecks of last time are of this trunk, and not partly of a `retrain.py` that is not asked
    for any more."""
    info = find_info(str(self._work / _NOW))
    of_texts = info is not None and "bottleneck_dir" in info.settings
    of_trunk = (self.chain.remembered(_NOW) or "").endswith(f" {self._trunk_state}")
    return of_trunk and (self._has_texts or not of_texts)

  def _end_replacement(self) -> None:
    """Puts new bottlenecks that are finished in the place of the old ones; goes on where a kill left that."""
    now, new, old = (self._work / name for name in (_NOW, _NEXT, _OLD))
    if is_completed(str(new)):
      if now.exists():
        self._delete_old()
        self.chain.remember(_OLD, "to be deleted")
        now.rename(old)
      self.chain.remember(_NOW, self.chain.remembered(_NEXT) or "")
      new.rename(now)
    self._delete_old()

  def _delete_old(self) -> None:
    if self.chain.remembered(_OLD):
      files.delete([str(self._work / _OLD)])
      self.chain.remember(_OLD, "")

  def _refuse_what_is_not_ours(self) -> None:
    """A stage refuses that too, but only when it is its turn."""
    with in_our_flags():
      for folder, stage in ((_NOW, _NOW), (_NEXT, _NOW), ("train", "train"), ("evaluate", "evaluate")):
        find_earlier(str(self._work / folder), stage)
    old = self._work / _OLD
    if old.exists() and not self.chain.remembered(_OLD):
      raise InputError(f"{PROG}: {old} was not written by this command: move it away, or give another --work_dir.")

  def train(self) -> None:
    """Trains the head, unless it is trained."""
    if self.chain.code != DONE:
      return
    if self.is_trained:
      print("train: finished and unchanged, kept")
      return
    argv = [f"--input={self._work / _NOW}", *train_flags(self._flags)]
    self.chain.run("train", [*argv, f"--logging_verbosity={self._flags.logging_verbosity}"])
    if self.chain.code == DONE:
      self.chain.remember("train", self._train_state)
      self.chain.remember(_OUTSIDE, self._digest_of_outside())

  def evaluate(self) -> None:
    """Predicts the testing images, from their bottlenecks."""
    paths = [f"--model={self._work / 'train'}", f"--input={self._work / _NOW}"]
    self.chain.keep_or_run("evaluate", ["--split=testing"], [*paths, *self._more], after=self._train_state)

  def _digest_of_outside(self) -> str:
    """Of what `train` writes outside of its own folder, where another run may have written since."""
    flags = self._flags
    paths = [os.path.join(flags.summaries_dir, name) for name in ("train", "validation")]
    paths += glob.glob(f"{glob.escape(flags.checkpoint_path)}.*")
    if flags.intermediate_store_frequency:
      paths += glob.glob(os.path.join(glob.escape(flags.intermediate_output_graphs_dir), "intermediate_*.pb"))
    return hashlib.sha256(
      json.dumps([digest_of_files(os.path.abspath(path)) for path in sorted(paths)]).encode()
    ).hexdigest()


def bottlenecks_flags(flags: argparse.Namespace) -> list[str]:
  """Returns the arguments of `bottlenecks` that decide what comes out, but `--bottleneck_dir`."""
  # Legacy splits hash the path as it was typed; to all else it is one folder, wherever it is typed from.
  images = flags.image_dir if flags.split_hash == LEGACY else os.path.abspath(flags.image_dir)
  distortions = ["--flip_left_right"] if flags.flip_left_right else []
  distortions += [f"--{name}={value}" for name in _DISTORTIONS if (value := getattr(flags, name))]
  return [
    f"--input={images}",
    "--retrain_names",
    f"--trunk={flags.tfhub_module}",
    *given("--trunk_weights", flags.trunk_weights),
    *given("--trunk_input_px", flags.trunk_input_px),
    *given_precision(flags),
    f"--testing_percentage={flags.testing_percentage}",
    f"--validation_percentage={flags.validation_percentage}",
    f"--split_hash={flags.split_hash}",
    *distortions,
    *given("--distortion_copies", flags.distortion_copies),
    *given("--distortion_seed", flags.distortion_seed),
    *given("--on_leak", flags.on_leak),
  ]


def train_flags(flags: argparse.Namespace) -> list[str]:
  """Returns the arguments of `train` that decide what comes out and where it goes, but its input and output."""
  return [
    "--preset=retrain",
    f"--training_steps={flags.how_many_training_steps}",
    f"--learning_rate={flags.learning_rate}",
    f"--batch_size={flags.train_batch_size}",
    f"--eval_step_interval={flags.eval_step_interval}",
    f"--validation_batch_size={flags.validation_batch_size}",
    f"--seed={flags.seed}",
    f"--final_tensor_name={flags.final_tensor_name}",
    f"--summaries_dir={os.path.abspath(flags.summaries_dir)}",
    f"--intermediate_output_graphs_dir={os.path.abspath(flags.intermediate_output_graphs_dir)}",
    f"--intermediate_store_frequency={flags.intermediate_store_frequency}",
    f"--checkpoint_path={os.path.abspath(flags.checkpoint_path)}",
  ]


def find_own_texts(flags: argparse.Namespace, folders: Sequence[ClassFolder]) -> Texts | None:
  """Returns what `retrain.py` cached of these images with the same module, if anything.

  What it cached with another module it did not see either.
  """
  if folders[0].split is not None:
    return None
  handles = [flags.tfhub_module, *([HUB_INCEPTION_V3] if flags.tfhub_module == INCEPTION_V3 else [])]
  try:
    texts = find_texts(flags.bottleneck_dir, {folder.prefix for folder in folders}, handles)
  except InputError:  # there are none, or of several other modules
    return None
  return texts if texts.is_of_trunk or not texts.module else None


@contextlib.contextmanager
def in_our_flags() -> Iterator[None]:
  """Has a stage's complaint name the flags that the user gave."""
  try:
    yield
  except InputError as error:
    said = re.sub(r"--trunk(?!\w)", "--tfhub_module", str(error))
    said = re.sub(r"--input(?!\w)", "--image_dir", said)
    said = re.sub(r"--output(?!\w)", "--work_dir", said)
    said = re.sub(r"leave out --reuse( \S+)?", "delete that folder", said)
    raise InputError(re.sub("beam-retrain (bottlenecks|train)(?=:| --help)", PROG, said)) from error
