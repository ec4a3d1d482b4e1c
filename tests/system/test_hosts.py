"""Jobs over hosts that share nothing but a bucket, and what becomes of them when a host goes silent.

The hosts are namespaces of this machine: see deploy/engines/hosts.py. `make test-hosts` runs all but the trials that
are named `on_request`; the table in docs/clusters.md has the command of each.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from beam_retrain.pipelines import bottlenecks, convert, evaluate
from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.trainer import task
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from deploy.engines import hosts as layout
from tests.helpers import ROOT
from tests.system.engine_suite import ENGINES, ONE_WORKER, assert_same, engine_file, needs_engines

_HOSTS = [sys.executable, str(ROOT / "deploy" / "engines" / "hosts.py")]
BOUND_SECS = 240
"""A job ends within that after a host has gone silent."""
_PATIENCE_SECS = 900
"""Undisturbed, one takes a minute or two, and on a very busy machine five."""
_CLI = [sys.executable, "-m", "beam_retrain.pipelines.cli"]
_UPLOAD = """
import sys
from apache_beam.options.pipeline_options import PipelineOptions
from beam_retrain.transforms.io import files, transfer
files.use_options(PipelineOptions(flags=sys.argv[3:]))
for name in sys.argv[2].split():
  transfer.put_folder(f"{sys.argv[1]}/{name}", f"s3://bucket/{name}")
"""


_ASK = [
  *(sys.executable, "-Sc"),
  """
import sys, urllib.error, urllib.request
try:
  print(urllib.request.urlopen(sys.argv[1], timeout=3).headers["Server"])
except urllib.error.HTTPError as error:
  print(error.headers["Server"])
except OSError as error:
  print(error)
""",
]


def _missing() -> str:
  """Returns why hosts cannot be laid out here, or ""."""
  try:
    layout.check_machine(Path(os.environ.get(ENGINES, ROOT / ".engines")))
  except layout.ClusterError as error:
    return str(error)
  return ""


needs_hosts = pytest.mark.skipif(bool(os.environ.get(ENGINES) and _missing()), reason=_missing() or "-")


class Lab(NamedTuple):
  """Hosts that are up. `flags` are a job's; `bucket` is where its objects lie as files."""

  hosts: layout.Hosts
  flags: Sequence[str]

  @property
  def bucket(self) -> Path:
    return self.hosts.folder / "store" / "objects" / "bucket"

  def start(self, *argv: str, with_engine: bool = True) -> subprocess.Popen:
    """Starts a command of beam-retrain on the driver."""
    flags = self.flags if with_engine else [flag for flag in self.flags if flag.startswith("--s3_")]
    command = self.hosts.command("driver", [*_CLI, *argv, *flags])
    environment = self.hosts.environment("driver")
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, **out, start_new_session=True)

  def run(self, *argv: str, with_engine: bool = True) -> str:
    """Runs one to its end; returns what it printed."""
    return finish(self.start(*argv, with_engine=with_engine))

  def upload(self, *folders: Path) -> None:
    """Puts folders into the bucket, by their names."""
    own = self.hosts.folder / "driver"
    names = " ".join(folder.name for folder in folders if not (self.bucket / folder.name).exists())
    for name, folder in ((folder.name, folder) for folder in folders):
      shutil.copytree(folder, own / name, dirs_exist_ok=True)
    s3 = [flag for flag in self.flags if flag.startswith("--s3_")]
    ended = self.hosts.run("driver", [sys.executable, "-c", _UPLOAD, str(own), names, *s3])
    assert ended.returncode == 0, ended.stderr


def finish(job: subprocess.Popen, secs: float = _PATIENCE_SECS) -> str:
  """Waits for a job's end; returns what it printed, which a failure has in its message. `-rP` shows the wait."""
  began = time.monotonic()
  try:
    printed, _ = job.communicate(timeout=secs)
  except subprocess.TimeoutExpired:
    pytest.fail(f"it did not end within {secs:g} s, having printed:\n{end(job)}")
  assert job.returncode == ExitCode.DONE, printed
  print(f"{job.args[job.args.index(_CLI[-1]) + 1]} ended after {time.monotonic() - began:.0f} s")
  return str(printed)


def end(job: subprocess.Popen) -> str:
  """Kills a job with the processes that it has started; returns what it printed."""
  os.killpg(job.pid, signal.SIGKILL)
  return str(job.communicate()[0])


@contextlib.contextmanager
def up(engine: str, folder: Path, workers: int = 2, retries: int = layout.cluster.RETRIES) -> Iterator[Lab]:
  lab = layout.Layout(workers, engine, engine_file(engine).parent, folder, retries, ends_with_caller=True)
  flags = lab.up()
  try:
    yield Lab(layout.Hosts.find(folder), flags)
  finally:
    subprocess.run([*_HOSTS, f"--folder={folder}", "down"], check=True, capture_output=True)


class Local:
  """What commands on this machine write, each when it is first asked for."""

  def __init__(self, work: Path):
    self.work = work

  @functools.cached_property
  def idx(self) -> Path:
    """1,000 images."""
    return write_idx(self.work / "idx", 900, 100)

  @functools.cached_property
  def many(self) -> Path:
    """5,120 images, which are five shards or more."""
    return write_idx(self.work / "many", 4608, 512)

  @functools.cached_property
  def images(self) -> Path:
    return self._run(convert.run, "images", _convert(self.idx))

  @functools.cached_property
  def model(self) -> Path:
    return self._run(task.run, "model", _train(self.bottlenecks_of(self.idx)), ())

  @functools.cached_property
  def evaluation(self) -> Path:
    return self._run(evaluate.run, "evaluation", _evaluate(self.idx, self.model))

  @functools.cached_property
  def history(self) -> Path:
    history = self.work / "history"
    assert reevaluate.run([*_night(self.idx, self.model, history), *ONE_WORKER]) == ExitCode.DONE
    return history

  def bottlenecks_of(self, images: Path, *trunk: str) -> Path:
    # In a process of its own: OpenVINO's names have numbers that go on from what the process converted before.
    run = (lambda argv: subprocess.run([*_CLI, "bottlenecks", *argv]).returncode) if trunk else bottlenecks.run
    return self._run(run, f"bottlenecks-{images.name}-{len(trunk)}", embed(images, *trunk))

  def _run(self, run: Callable, name: str, argv: list[str], engine: Sequence[str] = ONE_WORKER) -> Path:
    if not (self.work / name).exists():
      began = time.monotonic()
      assert run([*argv, f"--output={self.work / name}", *engine]) == ExitCode.DONE
      print(f"{name} took {time.monotonic() - began:.0f} s on this machine alone")
    return self.work / name


def write_idx(folder: Path, training: int, testing: int) -> Path:
  """Writes MNIST's files of scikit-learn's digits, each in noise of its own."""
  from sklearn.datasets import load_digits

  digits, rng = load_digits(), np.random.default_rng(3)
  folder.mkdir()
  for name, count in (("train", training), ("t10k", testing)):
    chosen = rng.integers(0, len(digits.images), count)
    pixels = np.kron(digits.images[chosen], np.ones((3, 3))) * 12 + rng.integers(0, 60, (count, 24, 24))
    padded = np.pad(pixels.astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    (folder / f"{name}-images-idx3-ubyte").write_bytes(encode_idx(padded))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(encode_idx(digits.target[chosen].astype(np.uint8)))
  return folder


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
  return Local(tmp_path_factory.mktemp("local"))


def _convert(given: object) -> list[str]:
  return [f"--input={given}", "--formats=tfrecord"]


def embed(given: object, *trunk: str) -> list[str]:
  return [f"--input={given}", *(trunk or ["--trunk=bundled", "--batch_size=32"])]


def _train(given: object) -> list[str]:
  return [f"--input={given}", "--rounds=9"]


def _evaluate(given: object, model: object) -> list[str]:
  return [f"--input={given}", f"--model={model}", "--batch_size=32"]


def _night(given: object, model: object, history: object) -> list[str]:
  return [*_evaluate(given, model), f"--history={history}", "--date=2026-03-01"]


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
  engine, workers = request.param
  with up(engine, tmp_path_factory.mktemp("hosts") / engine, workers) as found:
    yield found


def on(*engines: str) -> Callable:
  """Runs a test on these engines with two workers, on request on the others and with three."""
  layouts = [("flink", 2), ("spark", 2), ("flink", 3), ("spark", 3)]
  always = [(engine, 2) for engine in engines]
  params = [pytest.param(one, id=f"{one[0]}-{one[1]}{'' if one in always else '-on_request'}") for one in layouts]
  return lambda test: needs_engines(needs_hosts(pytest.mark.parametrize("lab", params, indirect=True)(test)))


@on("flink")
def test_hosts_share_no_folder_and_reach_only_each_other(lab):
  folder, names = lab.hosts.folder, lab.hosts.names
  places = [*layout._OWN, *(folder / name for name in names), folder / "temp", folder, ROOT, "/root", "/etc"]
  for name in names:
    for place in map(str, places):
      written = lab.hosts.run(name, ["touch", f"{place}/from-{name}"]).returncode == 0
      assert written == (place in (*layout._OWN, str(folder / name), str(folder / "temp"))), (name, place)
    seen = lab.hosts.run(name, ["sh", "-c", f"hostname; ls {' '.join(layout._OWN)} {folder}/temp"]).stdout.split()
    assert seen[0] == name
    assert {each for each in seen if each.startswith("from-")} == {f"from-{name}"}
  store = f"http://{lab.hosts.address('store')}:7070"
  assert lab.hosts.run("worker0", [*_ASK, store]).stdout == "VERSITYGW\n"
  assert "Network is unreachable" in lab.hosts.run("worker0", [*_ASK, "http://192.0.2.1"]).stdout
  # There may be something else here at that address.
  assert subprocess.run([*_ASK, store], capture_output=True, text=True).stdout != "VERSITYGW\n"


@on("flink")
def test_a_night_with_the_history_in_the_bucket(lab, local):
  lab.upload(local.idx, local.model)
  lab.run("reevaluate", *_night("s3://bucket/idx", "s3://bucket/model", "s3://bucket/history"))
  night = json.loads((lab.bucket / "history" / "2026-03-01.json").read_text())["folder"]
  assert_same(lab.bucket / "history" / "nights" / night, local.history / "2026-03-01", has_same_inputs=False)


@on()
def test_convert(lab, local):
  lab.upload(local.idx)
  lab.run("convert", *_convert("s3://bucket/idx"), "--output=s3://bucket/images")
  assert_same(lab.bucket / "images", local.images, has_same_inputs=False)


@on()
def test_bottlenecks(lab, local):
  lab.upload(local.many)
  lab.run("bottlenecks", *embed("s3://bucket/many"), "--output=s3://bucket/bottlenecks")
  assert_same(lab.bucket / "bottlenecks", local.bottlenecks_of(local.many), has_same_inputs=False)


@on()
def test_train_and_evaluate(lab, local):
  stored = local.bottlenecks_of(local.idx)  # an engine's may differ in the transform's last digits
  lab.upload(local.idx, stored)
  lab.run("train", *_train(f"s3://bucket/{stored.name}"), "--output=s3://bucket/trained", with_engine=False)
  for name in ("head.npz", "labels.txt", "metrics.json"):
    assert (lab.bucket / "trained" / name).read_bytes() == (local.model / name).read_bytes(), name
  lab.run("evaluate", *_evaluate("s3://bucket/idx", "s3://bucket/trained"), "--output=s3://bucket/evaluation")
  assert_same(lab.bucket / "evaluation", local.evaluation, has_same_inputs=False)


@on()
def test_all_of_mnist(lab, local, mnist_folder):
  lab.upload(mnist_folder)
  lab.run("bottlenecks", *embed("s3://bucket/mnist"), "--output=s3://bucket/of-mnist")
  assert_same(lab.bucket / "of-mnist", local.bottlenecks_of(mnist_folder), has_same_inputs=False)


@on()
def test_a_thousand_images_at_299(lab, local, inception_weights):
  lab.upload(local.idx)
  trunk = ("--trunk=keras:InceptionV3", f"--trunk_weights={inception_weights}")
  lab.run("bottlenecks", *embed("s3://bucket/idx", *trunk), "--output=s3://bucket/at-299")
  assert_same(lab.bucket / "at-299", local.bottlenecks_of(local.idx, *trunk), has_same_inputs=False)


@on()
@pytest.mark.parametrize(("host", "secs"), [("worker1", 30), ("master", 20), ("store", 20)], ids=str)
def test_a_host_is_silent_for_a_while(lab, local, host, secs):
  job = cut(lab, local, host, f"{host}-{secs}")
  mending = threading.Timer(secs, lab.hosts.connect, (host, True))
  mending.start()
  try:
    finish(job, BOUND_SECS)
  finally:
    mending.join()
  assert_same(lab.bucket / f"{host}-{secs}", local.bottlenecks_of(local.many), has_same_inputs=False)


@on("flink")
def test_a_worker_s_host_is_cut_off_for_good_and_its_orphans_come_back(lab, local):
  job = cut(lab, local, "worker1", "cut")
  try:
    finish(job, BOUND_SECS)
    assert_same(lab.bucket / "cut", local.bottlenecks_of(local.many), has_same_inputs=False)
  finally:
    lab.hosts.connect("worker1", True)
  time.sleep(5)  # in which its orphaned workers may write what they have
  assert_same(lab.bucket / "cut", local.bottlenecks_of(local.many), has_same_inputs=False)


def cut(lab: Lab, local: Local, host: str, output: str) -> subprocess.Popen:
  """Starts a job, and cuts a host off when a shard is finished; not all are."""
  lab.upload(local.many)
  began = time.monotonic()
  job = lab.start("bottlenecks", *embed("s3://bucket/many"), f"--output=s3://bucket/{output}")
  reports, deadline = lab.bucket / output / "records" / ".shards", began + _PATIENCE_SECS
  while not list(reports.glob("*.json")):
    assert job.poll() is None, job.communicate()[0]
    assert time.monotonic() < deadline, f"no shard was finished:\n{end(job)}"
    time.sleep(0.05)
  lab.hosts.connect(host, False)
  finished = len(list(reports.glob("*.json")))
  assert finished < 5, "it was cut off too late"
  print(f"{host} was cut off after {time.monotonic() - began:.0f} s and {finished} of 6 shards")
  return job


@needs_engines
@needs_hosts
def test_what_a_kill_leaves_is_taken_down(tmp_path):
  engines = engine_file("flink").parent
  at_folder = [*_HOSTS, f"--folder={tmp_path / 'hosts'}", f"--engines={engines}"]
  with subprocess.Popen([*at_folder, "up", "1"], stdout=subprocess.PIPE) as starting:
    while starting.poll() is None and not (tmp_path / "hosts" / "hosts.json").exists():
      time.sleep(0.02)
    starting.kill()
  assert layout.cluster.processes_of(tmp_path / "hosts")
  again = subprocess.run([*at_folder, "up", "1"], capture_output=True, text=True)
  assert "is running already: stop it first with `hosts.py down`." in again.stderr
  subprocess.run([*at_folder, "down"], check=True, capture_output=True)
  assert layout.cluster.processes_of(tmp_path / "hosts") == []
  gone = subprocess.run([*at_folder, "cut", "worker0"], capture_output=True, text=True)
  assert gone.stderr == f"hosts.py: no hosts are up in {tmp_path / 'hosts'}: start them with `hosts.py up 2`.\n"


@needs_engines
@needs_hosts
def test_hosts_of_a_program_end_when_it_is_killed(tmp_path):
  folder, engines = tmp_path / "hosts", engine_file("flink").parent
  code = f"""
import pathlib
from deploy.engines.hosts import Layout
Layout(1, "flink", pathlib.Path({str(engines)!r}), pathlib.Path({str(folder)!r}), ends_with_caller=True).up()
"""
  with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as program:
    while program.poll() is None and not (folder / "master.log").exists():
      time.sleep(0.02)
    assert layout.cluster.processes_of(folder)
    program.kill()
  deadline = time.monotonic() + _PATIENCE_SECS
  while left := layout.cluster.processes_of(folder):
    assert time.monotonic() < deadline, left
    time.sleep(0.1)


def test_without_root_it_says_so():
  code = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "deploy" / "engines")!r})
import hosts
os.geteuid() or os.setuid(65534)
try:
  hosts.check_machine(hosts.Path("."))
except hosts.ClusterError as error:
  print(error)
"""
  ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert ended.stdout == "hosts are Linux namespaces, which only root can make: run this as root, on Linux.\n"
