"""One run of the benchmark: what is made first, then each contender in turn."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.machine import available_cores
from benchmarks import where
from benchmarks.before import THIS, Version, make_before
from benchmarks.bench_inputs import link_some, read_vectors
from benchmarks.commands import timed
from benchmarks.contenders import BFLOAT16, FEW, FLOAT32, INT8, OPENVINO, OTHERS, SOME, Contender
from benchmarks.environments import make_environment
from benchmarks.measurements import Run, least_cosine, steady_rate
from benchmarks.peers.protocol import list_images
from benchmarks.processes import Process, ProcessError, run_process

# Below it a contender computes something else. With another decoder included, bfloat16 had 0.995 and int8 0.99; an
# input left unscaled had 0.67, vectors in another order 0.80.
LEAST_COSINE = 0.97
_ROUNDS_OF_FULL, _IMAGES_OF_FULL = 5, 2
_REFERENCE = OPENVINO, FLOAT32


class Bench:
  """One run of the benchmark.

  Attributes:
    results: contender's name -> its runs.
    settings: peer's name -> how its engine was set, and its version.
    faults: contender's name, or another benchmark's title -> why it could not be measured.
  """

  def __init__(self, work: Path, *, limit: int | None, rounds: int | None, full: bool):
    self.results: dict[str, list[Run]] = {}
    self.settings: dict[str, dict[str, Any]] = {}
    self.faults: dict[str, str] = {}
    self._work = work
    self._limit = limit
    self._rounds = rounds
    self._full = full
    self._pythons: dict[str, Path] = {}
    self._reference: dict[str, np.ndarray] = {}
    self._weights = self._network = work
    self._before: Version | None = None
    caches = {"BEAM_RETRAIN_CACHE_DIR": "cache", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    self._environ = {name: str(work / folder) for name, folder in caches.items()}

  def prepare(self, data: str, weights: Path, contenders: Sequence[Contender]) -> None:
    """Makes environments, images, the network in all forms, and a trunk of each kind; what is there is kept.

    Raises:
      InputError: something that all need cannot be made.
    """
    self._work.mkdir(parents=True, exist_ok=True)
    self._weights = weights
    # Other weights, another network.
    self._network = self._work / "network" / hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    for name in sorted({contender.environment for contender in contenders} - {""}):
      try:
        self._pythons[name] = make_environment(name, self._work / "environments")
      except InputError as error:
        self._give_up([contender for contender in contenders if contender.environment == name], str(error))
    if any(contender.is_before for contender in contenders):
      try:
        self._before = make_before(self._work / "0.4")
      except InputError as error:
        self._give_up([contender for contender in contenders if contender.is_before], str(error))
    self._make_images(data, contenders)
    if not (self._network / "network.json").exists():
      self._call("network", "benchmarks.network", f"--trunk_weights={weights}", f"--output={self._network}")
    if not (self._network / "int8.xml").exists() and "openvino" in self._pythons:
      self._quantise(contenders)
    self._prepare_ours(contenders)
    for contender in contenders:
      if contender.compiles:
        self._warm_up(contender)

  def _make_images(self, data: str, contenders: Sequence[Contender]) -> None:
    converted = self._work / "convert"
    if not (converted / "COMPLETED").exists():
      timed("convert", f"--input={data}", f"--output={converted}", "--formats=jpg")
    for images in {self._images(contender) for contender in contenders} | {self._few}:
      link_some(converted / "testing", self._folder(images), images)

  def _quantise(self, contenders: Sequence[Contender]) -> None:
    task = [f"--pictures={self._folder(self._few)}", f"--network={self._network}", "--precision=int8"]
    try:
      self._call(
        "quantise",
        "benchmarks.peers.openvino_quantise",
        *task,
        f"--output={self._work / 'quantise.json'}",
        python=self._pythons["openvino"],
      )
    except ProcessError as error:
      self._give_up([c for c in contenders if c.environment == "openvino" and c.precision == INT8], str(error))

  def _prepare_ours(self, contenders: Sequence[Contender]) -> None:
    """Runs ours, and 0.4, once in each kind over the images that will be measured, so that all caches are filled.

    Keeps the trunks, for the bare graphs, and the vectors in float32.
    """
    wanted = {(*_REFERENCE, self._few)}
    for contender in contenders:
      if contender.is_before:
        self._warm_up(contender)
      elif not contender.is_peer:
        wanted.add((contender.runtime, contender.precision, self._images(contender)))
    for runtime, precision, images in sorted(wanted):
      folder = self._first(runtime, precision)
      shutil.rmtree(folder, ignore_errors=True)
      try:
        ours = Contender("", precision, "ours", runtime=runtime)
        self._run_ours(ours, self._folder(images), folder, f"first-{runtime}-{precision}")
      except ProcessError as error:
        self._give_up([c for c in contenders if (c.runtime, c.precision) == (runtime, precision)], str(error))
    reference = self._first(*_REFERENCE)
    self._reference = read_vectors(reference) if (reference / "COMPLETED").exists() else {}

  def _warm_up(self, contender: Contender) -> None:
    if contender.name not in self.faults:
      try:
        self._measure(contender, 0)
      except ProcessError as error:
        self._give_up([contender], str(error))

  def measure(self, contenders: Sequence[Contender]) -> None:
    """Runs all contenders in turn, as many rounds as each of them takes part in; every second round backwards."""
    rounds = _ROUNDS_OF_FULL if self._full else max((contender.rounds for contender in contenders), default=0)
    for number in range(1, min(rounds, self._rounds or rounds) + 1):
      taking_part = [c for c in contenders if self._full or c.rounds >= number]
      for contender in taking_part if number % 2 else reversed(taking_part):
        if contender.name in self.faults:
          continue
        try:
          found = self._measure(contender, number)
        except ProcessError as error:
          self._give_up([contender], str(error))
          continue
        self.results.setdefault(contender.name, []).append(found)
        steady = "too few to tell" if found.steady is None else f"{found.steady:,.1f}/s steady"
        print(
          f"round {number}: {contender.name}: {steady}, whole process {found.whole_secs:.1f} s; {describe_load()}",
          flush=True,
        )

  def _measure(self, contender: Contender, number: int) -> Run:
    images = self._images(contender)
    pictures = self._folder(images)
    log = f"{contender.name}-{number}"
    if contender.is_ours or contender.is_before:
      folder = self._work / "output" / "run"
      shutil.rmtree(folder, ignore_errors=True)
      process, ends = self._run_ours(contender, pictures, folder, log)
      vectors = self._compare(read_vectors(folder))
      return Run(images, steady_rate(ends), process.seconds, process.peak_mb, vectors)
    result = self._work / "output" / "result.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.unlink(missing_ok=True)
    network = self._network if contender.is_peer else self._first(contender.runtime, contender.precision) / "trunk"
    process = self._call(
      log,
      f"benchmarks.{'peers.' if contender.is_peer else ''}{contender.module}",
      *(f"--pictures={pictures}", f"--network={network}", f"--precision={contender.precision}"),
      *(f"--threads={available_cores()}", f"--output={result}"),
      python=self._pythons.get(contender.environment),
    )
    told = json.loads(result.read_text())
    self.settings[contender.name] = told["settings"]
    found = np.load(result.with_name(told["vectors"]), allow_pickle=False)
    keys = [Path(path).relative_to(pictures).as_posix() for path in list_images(str(pictures))]
    cosine = self._compare(dict(zip(keys, found, strict=False)))
    ready = told["settings"].get("ready_secs")
    return Run(told["images"], steady_rate(told["ends"]), process.seconds, process.peak_mb, cosine, ready)

  def _compare(self, vectors: Mapping[str, np.ndarray]) -> float | None:
    """Returns the least cosine with ours in float32; raises `ProcessError` where that says it is something else."""
    both = sorted(vectors.keys() & self._reference.keys())
    if not both:
      return None
    cosine = least_cosine(*(np.stack([found[key] for key in both]) for found in (vectors, self._reference)))
    if cosine < LEAST_COSINE:
      raise ProcessError(f"its vectors are not those of this network: least cosine {cosine:.3f} with ours in float32")
    return cosine

  def _run_ours(self, contender: Contender, pictures: Path, folder: Path, log: str) -> tuple[Process, list[Any]]:
    ends = self._work / "ends.json"
    trunk = ["--trunk=keras:InceptionV3", f"--trunk_weights={self._weights}"]
    kind = [f"--precision={contender.precision}", f"--runtime={contender.runtime}"]
    # None for validation: of a trial's few images, some label would have none.
    where = [f"--input={pictures}", f"--output={folder}", "--validation_percentage=0"]
    command = ["bottlenecks", *where, *trunk, *kind]
    if contender.is_before:
      assert self._before, "it was given up where it could not be made"
      path, caches = self._log(log), {"BEAM_RETRAIN_CACHE_DIR": str(self._work / "cache-0.4")}
      return run_process([*self._before.command, *command], path, caches, root=self._before.root), []
    process = self._call(log, "benchmarks.ours", str(ends), *command)
    return process, json.loads(ends.read_text())

  def measure_where(self) -> dict[str, dict[str, float]]:
    """Returns where the seconds of few images in bfloat16 go: version -> kind -> seconds."""
    found = {}
    pictures, output, seconds = self._folder(FEW), self._work / "output" / "where", self._work / "where.json"
    trunk = ["--trunk=keras:InceptionV3", f"--trunk_weights={self._weights}", f"--precision={BFLOAT16}"]
    job = ["bottlenecks", f"--input={pictures}", f"--output={output}", "--validation_percentage=0", *trunk]
    for version, cache in ((THIS, "cache"), (self._before, "cache-0.4")):
      if version and pictures.exists():
        shutil.rmtree(output, ignore_errors=True)
        python, _, module = version.command
        command = [python, str(Path(where.__file__)), str(seconds), module, *job, f"--runtime={OPENVINO}"]
        caches = {"BEAM_RETRAIN_CACHE_DIR": str(self._work / cache)}
        try:
          run_process(command, self._log(f"where {version.name}"), caches, root=version.root)
          found[version.name] = json.loads(seconds.read_text())["seconds"]
        except ProcessError as error:
          self.faults[f"where the seconds go, {version.name}"] = str(error)
    return found

  def measure_limits(self) -> dict[str, Any]:
    """Returns the best matrix product: precision -> gflops, how."""
    output = self._work / "matrix_product.json"
    try:
      self._call("matrix product", "benchmarks.matrix_product", f"--threads={available_cores()}", f"--output={output}")
    except ProcessError as error:
      self.faults["matrix product"] = str(error)
      return {}
    found: dict[str, Any] = json.loads(output.read_text())
    return found

  def measure_others(self, data: str) -> dict[str, Any]:
    """Runs the other benchmarks, each of which measures itself beside its own peers; returns their rows."""
    rows = {}
    for other in OTHERS:
      output = self._work / f"{other.module}.json"
      output.unlink(missing_ok=True)
      flags = other.full if self._full else other.trial if self._limit else other.flags
      if flags is None:
        self.faults[other.what] = "left out of a trial"
        continue
      given = [flag.format(data=data, before=self._work / "0.4", weights=self._weights) for flag in flags]
      print(f"{other.what}: python -m benchmarks.{other.module} {' '.join(given)}", flush=True)
      try:
        self._call(other.module, f"benchmarks.{other.module}", *given, f"--json={output}", own_cache=False)
        rows[other.what] = json.loads(output.read_text())
      except (ProcessError, OSError, ValueError) as error:
        self.faults[other.what] = str(error)
    return rows

  def _call(
    self, log: str, module: str, *arguments: str, python: Path | None = None, own_cache: bool = True
  ) -> Process:
    command = [str(python or sys.executable), "-m", module, *arguments]
    return run_process(command, self._log(log), self._environ if own_cache else {})

  def _log(self, name: str) -> Path:
    return self._work / "logs" / f"{name.replace(' ', '_').replace('/', '_')}.txt"

  def _give_up(self, contenders: Sequence[Contender], why: str) -> None:
    for contender in contenders:
      self.faults.setdefault(contender.name, why)
      print(f"{contender.name} is left out: {why}", flush=True)

  def _images(self, contender: Contender) -> int:
    wanted = contender.images * (_IMAGES_OF_FULL if self._full and contender.images >= SOME else 1)
    return min(wanted, self._limit or wanted)

  @property
  def _few(self) -> int:
    return min(SOME, self._limit or SOME)

  def _folder(self, images: int) -> Path:
    return self._work / "pictures" / str(images)

  def _first(self, runtime: str, precision: str) -> Path:
    """Where the first run of this kind is, which made its trunk."""
    return self._work / "output" / f"first-{runtime}-{precision}"


def describe_load() -> str:
  """Returns how busy the machine is, with whatever."""
  return f"load average {os.getloadavg()[0]:.1f}"
