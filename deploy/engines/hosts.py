"""Lays out hosts on this machine: a cluster and a server of S3.

  python deploy/engines/hosts.py up 2 --engine flink     # or spark; prints the flags of a job
  python deploy/engines/hosts.py run driver beam-retrain doctor FLAGS
  python deploy/engines/hosts.py cut worker1             # its network goes silent; `mend worker1` brings it back
  python deploy/engines/hosts.py down

The hosts are `driver`, where a command is started, `master`, `store`, which has `s3://bucket`, and `worker0`,
`worker1`, ... Each is a set of namespaces: an address, a name, processes, a /tmp and a home of its own. Whatever else
it sees of this machine's disks is read-only, as if installed there: no two hosts have a folder in common. Their network
is a switch that has no other links, so nothing leaves it, and nothing from outside reaches it. Needs root, Linux,
iproute2, and the jars and the server of `make engines`.

All processes have the folder in their environment, by which `down` finds them, as `cluster.py stop` does; with them go
the namespaces. Whoever imports this may let them end with its own process, however that ends.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import cluster
from cluster import MARKER, ClusterError, Here

S3_FLAGS = ["--s3_region_name=us-east-1"]
BUCKET = "s3://bucket"
_SERVER = ("versitygw-v1.8.0", "versitygw")
_KEY, _SECRET = "hosts", "only-for-hosts"
_S3_PORT = 7070
_MOST_WORKERS = 8
_STATE = "hosts.json"
_ROOT = Path(__file__).parents[2]
_SWITCH = "switch"
_SETTLED = "settled"
_PATIENCE_SECS = 60
# Each host has these for itself, in memory.
_OWN = ("/tmp", "/var/tmp", "/dev/shm")
_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--propagation=private")


class Hosts(Here):
  """Hosts that are up; `pids` of the processes that hold their namespaces."""

  bound_to = "0.0.0.0"

  def __init__(self, folder: Path, engines: Path, pids: dict[str, int]):
    self.folder, self.engines, self.pids = folder, engines, pids

  @classmethod
  def find(cls, folder: Path) -> Hosts:
    """Raises ClusterError if there are none."""
    if not cluster.processes_of(folder) or not (folder / _STATE).exists():
      raise ClusterError(f"no hosts are up in {folder}: start them with `hosts.py up 2`.")
    state = json.loads((folder / _STATE).read_text())
    return cls(folder, Path(state["engines"]), state["pids"])

  @property
  def names(self) -> list[str]:
    return [name for name in self.pids if name != _SWITCH]

  def address(self, name: str) -> str:
    return f"10.77.0.{self.names.index(name) + 1}"

  def environment(self, name: str) -> dict[str, str]:
    """A host's own: of this machine's variables only where programs are."""
    binaries = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    credentials = {"AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _SECRET, "AWS_CONFIG_FILE": os.devnull}
    kept = {key: value for key in ("JAVA_HOME", "LANG", "TERM") if (value := os.environ.get(key))}
    mark = {MARKER: str(self.folder), "SPARK_LOCAL_IP": self.address(name)}
    return {"PATH": binaries, "HOME": "/tmp", **kept, **mark, **credentials}

  def command(self, name: str, argv: list[str]) -> list[str]:
    if name not in self.names:
      raise ClusterError(f"there is no host {name}: give one of {', '.join(self.names)}.")
    pid = self.pids[name]
    inside = ("--net", "--mount", "--uts", "--ipc", f"--pid=/proc/{pid}/ns/pid_for_children")
    return ["nsenter", "--target", str(pid), *inside, "--", "env", "--chdir=/tmp", *argv]

  def get(self, url: str) -> dict:
    code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
    asked = self.run("driver", [sys.executable, "-Sc", code, url])
    found: dict = json.loads(asked.stdout or "no answer")
    return found

  def run(self, name: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command on a host, and returns what it printed."""
    return subprocess.run(
      self.command(name, argv), env=self.environment(name), capture_output=True, text=True, check=False
    )

  def connect(self, name: str, is_connected: bool) -> None:
    """Plugs a host into the switch, or out; its link stays up."""
    self.command(name, [])  # that there is one
    _ip(self.pids[_SWITCH], "link", "set", "dev", name, *(("master", _SWITCH) if is_connected else ("nomaster",)))


class Layout(NamedTuple):
  """What `up` is asked for.

  `ends_with_caller`: the hosts die with the thread that calls `up`.
  """

  workers: int
  engine: str
  engines: Path
  folder: Path
  retries: int = cluster.RETRIES
  ends_with_caller: bool = False

  def up(self) -> list[str]:
    """Starts everything, or nothing; returns the flags of a job."""
    check_machine(self.engines)
    cluster.prepare(self.engine, self.engines, self.folder, "hosts.py down")
    try:
      return self._up()
    except BaseException:
      cluster.stop(self.folder)
      raise

  def _up(self) -> list[str]:
    names = ["driver", "master", "store", *(f"worker{n}" for n in range(self.workers))]
    hosts = Hosts(self.folder, self.engines, dict.fromkeys([*names, _SWITCH], 0))
    addresses = {name: hosts.address(name) for name in names}
    lines = [f"{at} {name}\n" for name, at in {"localhost": "127.0.0.1", **addresses}.items()]
    (self.folder / "hosts").write_text("".join(lines))
    environment = {**os.environ, MARKER: str(self.folder)}
    log = self.folder / f"{_SWITCH}.log"
    holders = {_SWITCH: self._hold(["--net", "sleep", "infinity"], environment, log)}
    hosts.pids[_SWITCH] = holders[_SWITCH].pid
    _wait("switch between the hosts", holders[_SWITCH], log, lambda: _has_own_network(hosts.pids[_SWITCH]))
    _ip(hosts.pids[_SWITCH], "link", "add", _SWITCH, "type", "bridge", "forward_delay", "0")
    _ip(hosts.pids[_SWITCH], "link", "set", _SWITCH, "up")
    for name in names:
      (self.folder / name).mkdir()
      settle = [sys.executable, "-S", __file__, f"--folder={self.folder}", f"--engines={self.engines}", "settle", name]
      inside = [*_NAMESPACES, "--pid", "--fork", "--kill-child", "--mount-proc", *settle]
      holders[name] = self._hold(inside, environment, self.folder / f"{name}.host.log")
      hosts.pids[name] = holders[name].pid
    for name in names:
      log, settled = self.folder / f"{name}.host.log", self.folder / name / _SETTLED
      _wait(f"host {name}", holders[name], log, settled.exists)
      _plug(hosts, name)
    (self.folder / _STATE).write_text(json.dumps({"engines": str(self.engines), "pids": hosts.pids}, indent=2) + "\n")
    store = self._start_store(hosts)
    flags = cluster.launch(self.engine, self.engines, self.folder, self.retries, self.workers, hosts, {"store": store})
    flags += [f"--s3_endpoint_url=http://{hosts.address('store')}:{_S3_PORT}", *S3_FLAGS]
    (self.folder / "flags").write_text(shlex.join(flags) + "\n")
    return flags

  def _hold(self, argv: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen:
    """Starts a process that holds namespaces, in which no other outlives it."""
    dying = ["setpriv", "--pdeathsig", "KILL"] if self.ends_with_caller else []
    return cluster.run_beside([*dying, "unshare", *argv], environment, log)

  def _start_store(self, hosts: Hosts) -> subprocess.Popen:
    """Starts the server; its objects are files below `store/objects`."""
    kept = self.folder / "store"
    for name in ("objects/bucket", "attributes"):
      (kept / name).mkdir(parents=True)
    argv = [str(self.engines.joinpath(*_SERVER)), "--port", f"{hosts.address('store')}:{_S3_PORT}"]
    argv += [
      "--access-log",
      str(kept / "access.log"),
      "posix",
      "--sidecar",
      str(kept / "attributes"),
      str(kept / "objects"),
    ]
    environment = {**hosts.environment("store"), "ROOT_ACCESS_KEY": _KEY, "ROOT_SECRET_KEY": _SECRET}
    return cluster.run_beside(hosts.command("store", argv), environment, self.folder / "store.log")


def check_machine(engines: Path) -> None:
  """Raises ClusterError if hosts cannot be laid out here."""
  missing = [name for name in ("ip", "unshare", "nsenter", "setpriv", "mount") if not shutil.which(name)]
  if sys.platform != "linux" or os.geteuid():
    raise ClusterError("hosts are Linux namespaces, which only root can make: run this as root, on Linux.")
  if missing:
    raise ClusterError(f"{' and '.join(missing)} are missing: install iproute2 and util-linux.")
  tried = subprocess.run(["unshare", *_NAMESPACES, "--pid", "--fork", "true"], capture_output=True, text=True)
  if tried.returncode:
    raise ClusterError(f"no namespaces can be made here ({tried.stderr.strip()}): give the container CAP_SYS_ADMIN.")
  if not engines.joinpath(*_SERVER).exists():
    raise ClusterError(f"{engines.joinpath(*_SERVER)} does not exist: run `make engines`.")


def _wait(name: str, holder: subprocess.Popen, log: Path, is_ready: Callable[[], bool]) -> None:
  deadline = time.monotonic() + _PATIENCE_SECS
  while not is_ready():
    if time.monotonic() > deadline or holder.poll() is not None:
      raise ClusterError(f"the {name} did not start: {log.read_text().strip() or 'no message'}.")
    time.sleep(0.02)


def _has_own_network(pid: int) -> bool:
  return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def _plug(hosts: Hosts, name: str) -> None:
  """Gives a host its address, by a cable to the switch."""
  switch, host = hosts.pids[_SWITCH], hosts.pids[name]
  _ip(switch, "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", str(host))
  _ip(switch, "link", "set", "dev", name, "master", _SWITCH, "up")
  _ip(host, "addr", "add", f"{hosts.address(name)}/24", "dev", "eth0")
  _ip(host, "link", "set", "lo", "up")
  _ip(host, "link", "set", "eth0", "up")


def _ip(pid: int, *words: str) -> None:
  """Runs `ip` in the network of a process; may raise ClusterError."""
  ended = subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words], capture_output=True, text=True)
  if ended.returncode:
    raise ClusterError(f"ip {' '.join(words)}: {ended.stderr.strip()}.")


def settle(name: str, folder: Path, engines: Path) -> None:
  """Makes a new host's file systems, then only holds its namespaces.

  All is read-only but what is in memory and `folder/name`. What is installed is brought back where a folder of its own
  hides it.
  """
  installed = [Path(sys.prefix), Path(sys.base_prefix), _ROOT, engines, folder]
  found = {path: os.open(path, os.O_PATH) for path in dict.fromkeys(path.resolve() for path in installed)}
  own = os.open(folder / name, os.O_PATH)
  hosts_file = os.open(folder / "hosts", os.O_PATH)
  for line in Path("/proc/self/mounts").read_text().splitlines():
    place = line.split()[1].encode().decode("unicode_escape")
    if not place.startswith(("/proc", "/sys")):
      subprocess.run(["mount", "-o", "remount,bind,ro", place], capture_output=True, check=False)  # hidden ones fail
  for hidden in _OWN:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", hidden], check=True)
  for path, number in found.items():
    if str(path).startswith(_OWN):
      path.mkdir(parents=True, exist_ok=True)
      _bind(number, path)
      subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
  _bind(own, folder / name)
  subprocess.run(["mount", "-o", "remount,bind,rw", str(folder / name)], check=True)
  subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder / "temp")], check=True)
  _bind(hosts_file, Path("/etc/hosts"))
  subprocess.run(["hostname", name], check=True)
  (folder / name / _SETTLED).touch()
  # It reaps orphans, too; without a trap the first process of a namespace ignores signals.
  os.execvp("sh", ["sh", "-c", "trap exit TERM; sleep infinity & wait"])


def _bind(number: int, target: Path) -> None:
  argv = ["mount", "--no-canonicalize", "--bind", f"/proc/self/fd/{number}", str(target)]
  subprocess.run(argv, pass_fds=[number], check=True)


def main() -> int:
  parser = argparse.ArgumentParser(prog="hosts.py", allow_abbrev=False)
  parser.add_argument(
    "--engines", type=Path, default=_ROOT / ".engines", metavar="DIR", help="what `make engines` made"
  )
  parser.add_argument("--folder", type=Path, metavar="DIR", help="the hosts' own (default: DIR/hosts)")
  actions = parser.add_subparsers(dest="action", required=True)
  up = actions.add_parser("up", help="start the hosts, and print the flags of a job")
  up.add_argument("workers", type=int, choices=range(1, _MOST_WORKERS + 1), metavar="N", help="workers, 1 to 8")
  up.add_argument("--engine", choices=sorted(cluster.KINDS), default="flink", help="default: %(default)s")
  up.add_argument(
    "--retries", type=int, choices=range(10), default=cluster.RETRIES, metavar="N", help="as cluster.py's"
  )
  run = actions.add_parser("run", help="run a command on a host")
  run.add_argument("host")
  run.add_argument("command", nargs=argparse.REMAINDER)
  for action, words in (("cut", "unplug a host from the network"), ("mend", "plug it in again"), ("settle", "")):
    actions.add_parser(action, help=words or argparse.SUPPRESS).add_argument("host")
  actions.add_parser("down", help="end everything that the hosts run, whatever is left of it")
  arguments = parser.parse_args()
  engines = arguments.engines.resolve()
  folder = (arguments.folder or engines / "hosts").resolve()
  if arguments.action == "settle":
    settle(arguments.host, folder, engines)
  elif arguments.action == "up":
    print(shlex.join(Layout(arguments.workers, arguments.engine, engines, folder, arguments.retries).up()))
  elif arguments.action == "down":
    print(f"{folder}: {cluster.stop(folder)} processes ended")
  else:
    hosts = Hosts.find(folder)
    if arguments.action == "run":
      argv = hosts.command(arguments.host, arguments.command)
      return subprocess.run(argv, env=hosts.environment(arguments.host), check=False).returncode
    hosts.connect(arguments.host, arguments.action == "mend")
  return 0


if __name__ == "__main__":
  try:
    sys.exit(main())
  except ClusterError as error:
    print(f"hosts.py: {error}", file=sys.stderr)
    sys.exit(2)
