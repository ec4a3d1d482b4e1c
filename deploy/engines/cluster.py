"""Starts a Flink or Spark cluster on this machine.

  python deploy/engines/cluster.py start flink     # or spark; prints the flags of a job
  python deploy/engines/cluster.py status flink
  python deploy/engines/cluster.py stop flink

Only this machine can reach it, but for the job server of `--job_server`: Beam's listen on all addresses. The jars are
those of `make engines`. All files of a running cluster (ports, logs, scratch files, the workers' command) are in one
folder, `.engines/cluster-flink`. Each process has that folder in its environment, by which `stop` finds all of them,
Python workers and orphans included, and no others. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

WORKERS = 2
_MOST_WORKERS = 16
RETRIES = 5
MARKER = "BEAM_RETRAIN_CLUSTER"
_ENGINES = Path(__file__).parents[2] / ".engines"
_START_SECS = 90
_STOP_SECS = 10
_LOG_LINES = 40
_FLINK_RETRY_SECS = 10
_HOST = "127.0.0.1"
_KEEPALIVE = Path(__file__).with_name("flink-keepalive.yaml")
# Packages that Flink and Spark access by reflection, closed by default in Java 17.
_OPENED = (
  *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.text", "java.time"),
  *("java.util", "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks"),
  *("jdk.internal.ref", "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar"),
)
# To optimize further takes more of a core than it saves: of Java's work most is loading classes.
_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
# Allocated whole at the start, so that a Java worker's memory does not grow with the data.
_HEAP = ("-Xms512m", "-Xmx512m", "-XX:+AlwaysPreTouch")
_FLINK = "org.apache.flink.runtime"
_SPARK = "org.apache.spark.deploy"
_RUNNERS = "org.apache.beam.runners"
_SPARK_TIMEOUT = "-Dspark.worker.timeout=30"  # after which a silent Worker is lost


class ClusterError(Exception):
  """An error message for the user."""


class Here:
  """Where a cluster's processes run: on this machine; `hosts.py` has others.

  `driver` is the name of the place where a job is started.
  """

  bound_to = _HOST

  def address(self, name: str) -> str:
    """Returns the address of the process `name`, or of the driver."""
    return _HOST

  def environment(self, name: str) -> dict[str, str]:
    return dict(os.environ)

  def command(self, name: str, argv: list[str]) -> list[str]:
    """Returns what runs a command where the process `name` is."""
    return argv

  def get(self, url: str) -> dict:
    """Returns the JSON at a master's URL."""
    with urllib.request.urlopen(url, timeout=5) as answer:
      found: dict = json.load(answer)
    return found


_HERE = Here()


class Cluster(NamedTuple):
  processes: dict[str, list[str]]  # name -> arguments of `java` after the class path
  overview: str  # URL of the master's state, JSON
  workers_in: Callable[[dict], int]  # that JSON -> number of registered workers
  flags: list[str]
  job_server: list[str]  # arguments of `java`, as of a process; of a server that stands
  job_server_flags: list[str]  # of a job that starts its own
  variables: dict[str, str]  # added to the environment


def flink(engines: Path, folder: Path, retries: int, workers: int, places: Here = _HERE) -> Cluster:
  """Describes a session cluster; each TaskManager has a slot for each worker."""
  rpc, rest = _free_ports(2)
  master = places.address("master")
  conf = _flink_conf(folder, retries, workers, rpc, rest, master, places.bound_to)
  (folder / "conf").mkdir()
  lines = [f"{key}: {value}\n" for key, value in conf.items()]
  (folder / "conf" / "flink-conf.yaml").write_text("".join(lines) + _KEEPALIVE.read_text())
  config = ["--configDir", str(folder / "conf")]
  manager = f"{_FLINK}.entrypoint.StandaloneSessionClusterEntrypoint"
  worker = [*_HEAP, "-XX:MaxDirectMemorySize=448m", f"{_FLINK}.taskexecutor.TaskManagerRunner", *config]
  return Cluster(
    processes={
      "master": ["-Xmx512m", manager, *config, "--executionMode", "cluster"],
      **{
        name: [*worker, "-D", f"taskmanager.resource-id={name}", "-D", f"taskmanager.host={places.address(name)}"]
        for name in (f"worker{n}" for n in range(workers))
      },
    },
    overview=f"http://{master}:{rest}/overview",
    workers_in=lambda overview: int(overview["taskmanagers"]),
    flags=[
      "--runner=FlinkRunner",
      f"--flink_master={master}:{rest}",
      f"--parallelism={workers}",
      # A Python worker, with its loaded trunk, outlives a stage; a dead one does not outlive a retry.
      f"--environment_cache_millis={_FLINK_RETRY_SECS * 500}",
    ],
    job_server=["-Xmx512m", f"{_RUNNERS}.flink.FlinkJobServerDriver", f"--flink-master={master}:{rest}"],
    job_server_flags=[
      f"--flink_job_server_jar={engines / 'flink' / 'job-server.jar'}",
      *(f"--job_server_jvm_properties={each}" for each in _QUICK),
    ],
    variables={},
  )


def _flink_conf(
  folder: Path, retries: int, workers: int, rpc: int, rest: int, master: str, bound_to: str
) -> dict[str, object]:
  return {
    "jobmanager.rpc.address": master,
    "jobmanager.rpc.port": rpc,
    "jobmanager.bind-host": bound_to,
    "rest.address": master,
    "rest.bind-address": bound_to,
    "rest.port": rest,
    "taskmanager.bind-host": bound_to,
    # One TaskManager can do all the work if the others have died.
    "taskmanager.numberOfTaskSlots": workers,
    "taskmanager.load-balance.mode": "SLOTS",
    "taskmanager.cpu.cores": 1.0,
    "taskmanager.memory.task.heap.size": "384m",
    "taskmanager.memory.task.off-heap.size": "0",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
    "taskmanager.memory.managed.size": "256m",
    # tensorflow-transform's jobs have many exchanges, each with its own buffers: 64 MiB was not enough.
    "taskmanager.memory.network.min": "256m",
    "taskmanager.memory.network.max": "256m",
    "parallelism.default": workers,
    # The cluster has the job server's own jars: one copy of each class.
    "classloader.resolve-order": "parent-first",
    "io.tmp.dirs": folder / "temp",
    "blob.storage.directory": folder / "temp",
    # Attempts times delay exceed the time until a lost TaskManager is noticed.
    "heartbeat.interval": 2000,
    "heartbeat.timeout": 20000,  # processes of a busy machine were silent for ten seconds
    "cluster.registration.error-delay": 1000,  # a TaskManager that found no JobManager looks again soon
    "restart-strategy.type": "fixed-delay" if retries else "none",
    "restart-strategy.fixed-delay.attempts": retries,
    "restart-strategy.fixed-delay.delay": f"{_FLINK_RETRY_SECS} s",
  }


def spark(engines: Path, folder: Path, retries: int, workers: int, places: Here = _HERE) -> Cluster:
  """Describes a standalone cluster; each Worker has one core."""
  port, web, *worker_webs = _free_ports(2 + workers)
  (folder / "home").mkdir()
  (folder / "home" / "jars").symlink_to(engines / "spark")  # where Spark looks for its executors' jars
  nothing = folder / "nothing.jar"
  zipfile.ZipFile(nothing, "w").close()
  at = places.address
  master = f"spark://{at('master')}:{port}"
  limits = ["-c", "1", "-m", "1g", "-d", str(folder / "temp")]
  properties = {
    "spark.driver.host": at("driver"),
    "spark.driver.bindAddress": at("driver"),
    "spark.executor.memory": "512m",
    "spark.executor.extraJavaOptions": " ".join(("-Xms512m", "-XX:+AlwaysPreTouch", *_QUICK)),
    "spark.task.maxFailures": retries + 1,
    # An executor keeps a dead Python worker and fails every task: exclude it after one failure. Spark does not allow
    # that if a task may fail at most twice.
    "spark.excludeOnFailure.enabled": "true" if retries >= 2 else "false",
    "spark.excludeOnFailure.stage.maxFailedTasksPerExecutor": 1,
    # An executor whose host is silent is given up after a minute, not two.
    "spark.network.timeout": "60s",
    "spark.executor.heartbeatInterval": "5s",
  }
  defined = [f"-D{name}={value}" for name, value in properties.items()]
  return Cluster(
    processes={
      "master": [
        *("-Xmx384m", _SPARK_TIMEOUT, f"{_SPARK}.master.Master", "--host", at("master"), "--port", str(port)),
        *("--webui-port", str(web)),
      ],
      **{
        name: [
          *("-Xmx256m", _SPARK_TIMEOUT, f"{_SPARK}.worker.Worker", "--host", at(name), "--webui-port", str(web_port)),
          *(*limits, master),
        ]
        for name, web_port in ((f"worker{n}", web_port) for n, web_port in enumerate(worker_webs))
      },
    },
    overview=f"http://{at('master')}:{web}/json/",
    workers_in=lambda overview: int(overview["aliveworkers"]),
    flags=[
      "--runner=SparkRunner",
      f"--spark_master_url={master}",
      # As with Flink, but a stage of Spark waits for the previous one.
      "--environment_cache_millis=60000",
      f"--files_to_stage={nothing}",  # else each job sends the job server's jars to executors, which have them
    ],
    job_server=["-Xmx1g", *defined, f"{_RUNNERS}.spark.SparkJobServerDriver", f"--spark-master-url={master}"],
    job_server_flags=[
      f"--spark_job_server_jar={engines / 'spark' / 'job-server.jar'}",
      *(f"--job_server_jvm_properties={each}" for each in (*_QUICK, *defined)),
    ],
    variables={
      "SPARK_HOME": str(folder / "home"),
      "SPARK_SCALA_VERSION": "2.12",  # else it looks for a build of its own
    },
  )


KINDS: dict[str, Callable[[Path, Path, int, int, Here], Cluster]] = {"flink": flink, "spark": spark}


def start(
  kind: str,
  engines: Path,
  folder: Path,
  retries: int = RETRIES,
  workers: int = WORKERS,
  has_job_server: bool = False,
) -> list[str]:
  """Starts a cluster and waits until its workers are registered.

  Args:
    folder: the cluster's own; its contents are deleted.
    retries: retries of a Flink job, or of a Spark task.
    has_job_server: of its own, for all jobs.

  Returns:
    the flags of a job.

  Raises:
    ClusterError: it is already running, the jars are missing, or it did not start and has been stopped again.
  """
  prepare(kind, engines, folder, f"cluster.py stop {kind}")
  return launch(kind, engines, folder, retries, workers, has_job_server=has_job_server)


def prepare(kind: str, engines: Path, folder: Path, stops: str) -> None:
  """Empties a cluster's folder; raises ClusterError if it cannot start."""
  if not (engines / kind / "job-server.jar").exists():
    raise ClusterError(f"{engines / kind / 'job-server.jar'} does not exist: run `make engines`.")
  if processes_of(folder):
    raise ClusterError(f"{folder} is running already: stop it first with `{stops}`.")
  shutil.rmtree(folder, ignore_errors=True)
  (folder / "temp").mkdir(parents=True, mode=0o700)
  boot = folder / "worker"
  boot.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m beam_retrain.pipelines.worker "$@"\n')
  boot.chmod(0o700)


def launch(
  kind: str,
  engines: Path,
  folder: Path,
  retries: int,
  workers: int,
  places: Here = _HERE,
  others: Mapping[str, subprocess.Popen] = MappingProxyType({}),
  has_job_server: bool = False,
) -> list[str]:
  """Starts a cluster's processes in a prepared folder; see `start`.

  `others` are processes that must live, too, each with a log in the folder. Without a job server that stands, on this
  machine, each job starts its own.
  """
  cluster = KINDS[kind](engines, folder, retries, workers, places)
  opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
  java = ["java", *opened, *_QUICK, "-cp", str(engines / kind / "job-server.jar")]
  started, processes, flags, port = dict(others), cluster.processes, cluster.job_server_flags, 0
  if has_job_server:
    (port,) = _free_ports(1)
    where = [f"--job-host={_HOST}", f"--job-port={port}", "--artifact-port=0", "--expansion-port=0"]
    processes = {**processes, "job-server": [*cluster.job_server, *where, f"--artifacts-dir={folder / 'temp'}"]}
    flags = [f"--job_endpoint={_HOST}:{port}"]
  for name, arguments in processes.items():
    own = {"SPARK_LOCAL_IP": places.address(name), MARKER: str(folder)}
    environment = {**places.environment(name), **cluster.variables, **own}
    started[name] = run_beside(places.command(name, [*java, *arguments]), environment, folder / f"{name}.log")
  complaint = _wait(cluster, started, workers, places, port)
  if complaint:
    logs = (folder / f"{name}.log" for name in started)
    tails = "\n".join(f"--- {log}\n" + "\n".join(_last_lines(log)) for log in logs)
    stop(folder)
    print(tails, file=sys.stderr)
    raise ClusterError(f"{complaint}; the last lines of the logs are above.")
  flags = [
    *cluster.flags,
    *flags,
    "--environment_type=PROCESS",
    f"--environment_config={json.dumps({'command': str(folder / 'worker')})}",
  ]
  state = {"flags": flags, "overview": cluster.overview, "pids": {name: one.pid for name, one in started.items()}}
  (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n")
  return flags


def run_beside(argv: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen:
  """Starts a process that outlives this one."""
  with log.open("wb") as file:
    return subprocess.Popen(
      argv, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
    )


def _wait(cluster: Cluster, started: Mapping[str, subprocess.Popen], workers: int, places: Here, port: int) -> str:
  """Waits for the workers and, at `port`, the job server; returns an error message, or ""."""
  deadline = time.monotonic() + _START_SECS
  while time.monotonic() < deadline:
    for name, process in started.items():
      if process.poll() is not None:
        return f"{name} ended with exit code {process.returncode}"
    with contextlib.suppress(OSError, ValueError):
      if cluster.workers_in(places.get(cluster.overview)) == workers:
        if port:
          socket.create_connection((_HOST, port), timeout=5).close()
        return ""
    time.sleep(0.5)
  return f"{workers} workers were not registered within {_START_SECS} seconds"


def stop(folder: Path) -> int:
  """Terminates all processes of the cluster, then kills them; returns their number."""
  found = processes_of(folder)
  _signal(found, signal.SIGTERM)
  deadline = time.monotonic() + _STOP_SECS
  while left := processes_of(folder):
    if time.monotonic() > deadline:
      _signal(left, signal.SIGKILL)
    time.sleep(0.3)
  return len(found)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
  for pid in pids:
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, number)


def processes_of(folder: Path) -> list[int]:
  """Returns the ids of all processes with the folder in their environment."""
  wanted = f"{MARKER}={folder}".encode()
  found = []
  for entry in Path("/proc").iterdir():
    if entry.name.isdigit():
      with contextlib.suppress(OSError):  # it has ended, or is another user's
        if wanted in (entry / "environ").read_bytes().split(b"\0"):
          found.append(int(entry.name))
  return sorted(found)


def status(folder: Path) -> str:
  """Returns a sentence and, if it runs, the flags of a job."""
  found = processes_of(folder)
  if not found:
    return f"{folder}: not running"
  if not (folder / "state.json").exists():
    return f"{folder}: {len(found)} processes, not all workers are registered yet"
  state = json.loads((folder / "state.json").read_text())
  return f"{folder}: {len(found)} processes, {state['overview']}\n{shlex.join(state['flags'])}"


def _free_ports(count: int) -> list[int]:
  """Returns different free ports: all are bound at once."""
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind((_HOST, 0))
    return [one.getsockname()[1] for one in sockets]


def _last_lines(log: Path) -> list[str]:
  return log.read_text(errors="replace").splitlines()[-_LOG_LINES:]


def main() -> None:
  parser = argparse.ArgumentParser(prog="cluster.py", allow_abbrev=False)
  parser.add_argument("action", choices=["start", "stop", "status"])
  parser.add_argument("engine", choices=sorted(KINDS))
  parser.add_argument("--engines", type=Path, default=_ENGINES, metavar="DIR", help="what `make engines` made")
  parser.add_argument(
    "--retries",
    type=int,
    choices=range(10),
    default=RETRIES,
    metavar="N",
    help="retries of a failed Flink job or Spark task, 0 to 9 (default %(default)d)",
  )
  parser.add_argument(
    "--workers",
    type=int,
    choices=range(1, _MOST_WORKERS + 1),
    default=WORKERS,
    metavar="N",
    help=f"1 to {_MOST_WORKERS} (default %(default)d)",
  )
  parser.add_argument(
    "--job_server",
    action="store_true",
    help="of all jobs, which then start sooner; other machines can reach it, and run anything as you",
  )
  parser.add_argument("--folder", type=Path, metavar="DIR", help="the cluster's own (default: DIR/cluster-ENGINE)")
  arguments = parser.parse_args()
  engines = arguments.engines.resolve()
  folder = (arguments.folder or engines / f"cluster-{arguments.engine}").resolve()
  if arguments.action == "start":
    chosen = arguments.retries, arguments.workers, arguments.job_server
    print(shlex.join(start(arguments.engine, engines, folder, *chosen)))
  elif arguments.action == "stop":
    print(f"{folder}: {stop(folder)} processes ended")
  else:
    print(status(folder))


if __name__ == "__main__":
  try:
    main()
  except ClusterError as error:
    print(f"cluster.py: {error}", file=sys.stderr)
    sys.exit(2)
