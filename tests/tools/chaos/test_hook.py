"""The instrument of `make chaos`: it counts what processes do to files, and kills at a point of that."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.helpers import ROOT, python
from tools.chaos import hook

# A main process and a forked one. Nothing outside the folder counts, nor reading.
_WORK = """
import os, sys, tempfile
from tools.chaos import hook
root, state, at, whom = sys.argv[1:]
os.setsid()
hook.install(hook.Plan(root, state, int(at), whom, os.getpid()))
os.mkdir(f"{root}/made")
open(f"{root}/made/a.tmp", "w").write("a")
os.replace(f"{root}/made/a.tmp", f"{root}/made/a")
open(f"{root}/made/a").read()
tempfile.TemporaryFile(dir=os.path.dirname(state)).close()
child = os.fork()
if not child:
  with open(f"{root}/forked", "w") as file:
    os.fsync(file.fileno())
  os._exit(0)
os.waitpid(child, 0)
os.unlink(f"{root}/forked")
"""


def _work(folder: Path, at: int, whom: str) -> tuple[int, list[str], set[str]]:
  root = folder / "root"
  root.mkdir()
  plan = hook.Plan(str(root), str(folder / "state"), at, whom)
  hook.prepare(plan)
  done = python("-c", _WORK, root, plan.state, str(at), whom, check=False, cwd=ROOT)
  return done.returncode, hook.operations(plan), {str(path.relative_to(root)) for path in root.rglob("*")}


def test_operations_of_all_processes_are_counted_in_order(tmp_path):
  code, operations, left = _work(tmp_path, hook.NEVER, hook.GROUP)
  assert (code, left) == (0, {"made", "made/a"})
  assert operations == [
    "make made",
    "open made/a.tmp",
    "rename made/a.tmp",
    "open forked",
    "sync forked",
    "delete forked",
  ]


@pytest.mark.parametrize(
  ("at", "whom", "left"),
  [
    (3, hook.GROUP, {"made", "made/a.tmp"}),  # before the rename
    (5, hook.GROUP, {"made", "made/a", "forked"}),  # in the forked process, which takes the other with it
    (5, hook.PROCESS, {"made", "made/a", "forked"}),
  ],
)
def test_a_kill_comes_before_its_operation(tmp_path, at, whom, left):
  code, operations, found = _work(tmp_path, at, whom)
  assert (code, len(operations), found) == (-signal.SIGKILL, at, left)


def test_a_killed_worker_leaves_the_command_alone(tmp_path):
  assert _work(tmp_path, 5, hook.WORKER)[0] == 0
