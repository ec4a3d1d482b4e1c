"""Where the seconds of a command go: the stacks of all its threads, looked at a hundred times a second.

  python benchmarks/where.py FILE MODULE ARGUMENTS...

Runs `python -m MODULE ARGUMENTS...` and writes {kind: seconds} to FILE, and the CPU seconds as `cpu`. Needs nothing but
Python, so that any version's environment can run it. A look counts for the first of `KINDS` that a thread is at: one
that computes while another waits is what the command is doing.
"""

import collections
import json
import os
import runpy
import sys
import threading
import time

KINDS = (
  "trunk",
  "compiling the trunk",
  "importing TensorFlow",
  "importing Beam",
  "other imports",
  "TensorFlow at work",
  "Beam at work",
  "the rest",
)
_LOOK_SECS = 0.01
_TRUNK = {"infer", "__call__", "start_async"}
_COMPILE = {"compile_model", "read_model", "import_model"}
_IMPORTED = {"tensorflow": "importing TensorFlow", "keras": "importing TensorFlow", "apache_beam": "importing Beam"}
_AT_WORK = {"tensorflow": "TensorFlow at work", "apache_beam": "Beam at work"}


def kind_of(stack):
  """Returns what a thread is at; "" where it only waits.

  Args:
    stack: (file, function) of each frame, outermost first.
  """
  file, function = stack[-1]
  if os.path.basename(file) in ("threading.py", "queue.py", "selectors.py", "socketserver.py"):
    return ""
  packages = [_package(file) for file, _ in stack]
  for package, (_, function) in zip(packages, stack, strict=True):
    if package == "openvino" and function in _TRUNK | _COMPILE:
      return "trunk" if function in _TRUNK else "compiling the trunk"
  for package, (_, function) in zip(packages, stack, strict=True):
    if function == "<module>" and package in _IMPORTED:
      return _IMPORTED[package]
  if any("importlib" in file for file, _ in stack):
    return "other imports"
  return next((_AT_WORK[package] for package in reversed(packages) if package in _AT_WORK), "the rest")


def _package(file):
  return file.split("site-packages/")[-1].split("/")[0] if "site-packages/" in file else ""


def _stack(frame):
  found = []
  while frame:
    found.append((frame.f_code.co_filename, frame.f_code.co_name))
    frame = frame.f_back
  return found[::-1]


def _watch(seconds, stop):
  own, last = threading.get_ident(), time.perf_counter()
  while not stop.wait(_LOOK_SECS):
    kinds = {kind_of(_stack(frame)) for thread, frame in sys._current_frames().items() if thread != own}
    now = time.perf_counter()
    seconds[next((kind for kind in KINDS if kind in kinds), "the rest")] += now - last
    last = now


def main():
  output, module, *arguments = sys.argv[1:]
  seconds, stop = collections.Counter(), threading.Event()
  watcher = threading.Thread(target=_watch, args=(seconds, stop), daemon=True)
  sys.argv = [module, *arguments]
  sys.path[0] = os.getcwd()
  watcher.start()
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except SystemExit as ended:
    if ended.code:
      raise
  finally:
    stop.set()
    watcher.join()
    spent = os.times()
    with open(output, "w") as file:
      json.dump({"seconds": dict(seconds), "cpu": spent.user + spent.system}, file)


if __name__ == "__main__":
  main()
