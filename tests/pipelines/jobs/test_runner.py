"""What a user sees when a job ends, well or not: exit code, one sentence, and no traceback on the terminal."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import exit_code, run_command, run_pipeline
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.stats import Stats
from tests.helpers import ROOT

_NO_NETWORK = ("unshare", "--net", "--map-root-user")  # not even a loopback
# A command as ours are: a worker refuses an input (`refuse`), or has a bug (`bug`).
_COMMAND = """
import os
import signal
import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import run_command, run_pipeline
from beam_retrain.transforms.core.errors import InputError


class Work(beam.DoFn):
  def __init__(self, what):
    self._what = what

  def process(self, element):
    if self._what == "refuse":
      raise InputError("a.jpg has 0 bytes: remove it.")
    if self._what == "bug":
      raise ZeroDivisionError("what nobody thought of")
    if self._what == "interrupt":
      raise KeyboardInterrupt
    if self._what == "die":
      os.kill(os.getpid(), signal.SIGKILL)
    if self._what == "end":
      os._exit(7)
    yield element


def run(argv):
  def build(root):
    _ = root | "Create" >> beam.Create([1, 2, 3]) | "Spread" >> beam.Reshuffle() | "Work" >> beam.ParDo(Work(argv[0]))

  processes, flags = (2, argv[2:]) if argv[1:2] == ["forked"] else (1, argv[1:])
  run_pipeline(build, PipelineOptions(flags=flags), stage="test", shards_folder="nowhere", processes=processes)
  print("done")
  return 0


if __name__ == "__main__":
  codes = [run_command(run, [what, *sys.argv[2:]]) for what in sys.argv[1].split(",")]
  assert len(set(codes)) == 1, codes
  sys.exit(codes[0])
"""

_WITHOUT_NETWORK = pytest.mark.skipif(
  subprocess.run([*_NO_NETWORK, "true"], capture_output=True, check=False).returncode != 0,
  reason="a network namespace of one's own is not allowed here",
)
_RUNNERS = pytest.mark.parametrize(
  "flags",
  [
    ["--runner=FnApiRunner"],
    ["--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"],
    ["forked"],
  ],
  ids=["in process", "two processes", "two forked processes"],
)


def _run_command(tmp_path: Path, *argv: str, within: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
  script = tmp_path / "command.py"
  script.write_text(_COMMAND)
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
  return subprocess.run(
    [*within, sys.executable, str(script), *argv],
    capture_output=True,
    text=True,
    timeout=300,
    env=environment,
    check=False,
  )


@_RUNNERS
def test_a_refusal_and_an_unexpected_fault_are_a_sentence_each_with_the_traceback_in_a_file(tmp_path, flags):
  # Only once does a process fork workers: afterwards it has threads of gRPC.
  commands = ["refuse", "bug"] if flags == ["forked"] else ["refuse,bug"]
  ended = [_run_command(tmp_path, command, *flags) for command in commands]
  refused, failed = "".join(each.stderr for each in ended).splitlines()
  assert refused == "beam-retrain: a.jpg has 0 bytes: remove it."
  assert [each.stdout for each in ended] == [""] * len(commands)
  said = re.fullmatch(r"beam-retrain: the job failed: .*see the traceback in (\S+\.log)\)\.", failed)
  assert said, failed
  assert "what nobody thought of" in failed
  log = Path(said[1]).read_text()
  assert "Traceback" in log
  assert "ZeroDivisionError: what nobody thought of" in log
  assert {each.returncode for each in ended} == {ExitCode.FAILED}


def test_without_a_runner_a_job_runs_here_and_says_nothing_of_its_own(tmp_path):
  ended = _run_command(tmp_path, "work")
  assert (ended.returncode, ended.stdout, ended.stderr) == (ExitCode.DONE, "done\n", "")


@pytest.mark.parametrize("kind", [["forked"], ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]])
def test_a_worker_process_that_is_killed_ends_the_job(kind, tmp_path):
  ended = _run_command(tmp_path, "die", *kind)
  assert ended.returncode == ExitCode.FAILED
  sentence = "a worker process was killed, perhaps because memory ran out: run the same command again to resume."
  assert ended.stderr == f"beam-retrain: {sentence}\n"


@pytest.mark.parametrize("kind", [["forked"], ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]])
def test_a_worker_process_that_ends_by_itself_was_not_killed(kind, tmp_path):
  ended = _run_command(tmp_path, "end", *kind)
  assert ended.returncode == ExitCode.FAILED
  assert "a worker process ended by itself (exit code 7): the end of .beam-retrain.log" in ended.stderr


@_WITHOUT_NETWORK
@pytest.mark.parametrize("flags", [["forked"], ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]])
def test_workers_that_cannot_be_reached_are_told_before_they_are_waited_for(flags, tmp_path):
  ended = _run_command(tmp_path, "work", *flags, within=_NO_NETWORK)
  assert ended.returncode == ExitCode.FAILED
  said = "localhost, by which worker processes are reached, does not answer here (Network is unreachable)"
  assert said in ended.stderr


@_WITHOUT_NETWORK
@pytest.mark.parametrize("flag", ["--direct_num_workers=1", "--direct_num_workers=2"])
def test_threads_of_this_process_need_no_loopback(flag, tmp_path):
  ended = _run_command(tmp_path, "work", flag, within=_NO_NETWORK)
  assert (ended.returncode, ended.stdout) == (ExitCode.DONE, "done\n")


def test_an_interrupt_that_hits_a_worker_s_thread_is_one_too(tmp_path):
  ended = _run_command(tmp_path, "interrupt")
  assert ended.returncode == ExitCode.FAILED
  assert ended.stderr == "beam-retrain: interrupted; run the same command again to resume.\n"


def test_a_job_s_own_faults_come_through_as_they_are():
  def build(root):
    raise KeyError("in build")

  with pytest.raises(KeyError, match="in build"):
    run_pipeline(build, PipelineOptions(flags=["--runner=FnApiRunner"]), stage="test", shards_folder="nowhere")


def test_a_command_s_exit_code_is_handed_on():
  assert run_command(lambda argv: len(argv), ["a", "b", "c"]) == 3


def test_a_refusal_is_printed_as_it_is(capsys):
  def refuse(argv):
    raise InputError(f"{argv[0]} is not there: give another.")

  assert run_command(refuse, ["/data"]) == ExitCode.FAILED
  assert capsys.readouterr() == ("", "beam-retrain: /data is not there: give another.\n")


def test_an_interrupt_says_how_to_go_on(capsys):
  def interrupt(argv):
    raise KeyboardInterrupt

  assert run_command(interrupt, []) == ExitCode.FAILED
  assert capsys.readouterr().err == "beam-retrain: interrupted; run the same command again to resume.\n"


def test_sigterm_is_an_interrupt_while_a_command_runs_unless_somebody_else_sees_to_it(capsys):
  def end(argv):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)

  assert run_command(end, []) == ExitCode.FAILED
  assert capsys.readouterr().err == "beam-retrain: interrupted; run the same command again to resume.\n"
  assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  seen: list[int] = []
  signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
  try:
    assert run_command(lambda argv: os.kill(os.getpid(), signal.SIGTERM) or ExitCode.DONE, []) == ExitCode.DONE
  finally:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
  assert seen == [signal.SIGTERM]


def test_a_read_only_disk_is_told_in_one_sentence(capsys):
  def write(argv):
    raise OSError(errno.EROFS, "Read-only file system", "/data/nights")

  assert run_command(write, []) == ExitCode.FAILED
  expected = "beam-retrain: /data/nights: Read-only file system: fix it, or give another path.\n"
  assert capsys.readouterr().err == expected


def test_of_a_copy_the_target_s_disk_is_full(capsys, tmp_path):
  def write(argv):
    raise OSError(errno.ENOSPC, "No space left on device", "/cache/source", None, str(tmp_path / "target"))

  assert run_command(write, []) == ExitCode.FAILED
  assert capsys.readouterr().err.startswith(f"beam-retrain: {tmp_path}/target cannot be written: the disk of /")


def test_a_fault_with_a_long_text_is_still_one_line(capsys, tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

  def fail(argv):
    raise ValueError("x" * 1_000 + "\nsecond line")

  assert run_command(fail, []) == ExitCode.FAILED
  said = capsys.readouterr().err
  assert said.startswith("beam-retrain: the job failed: ValueError: xxx")
  assert len(said) < 400
  assert said.count("\n") == 1
  assert "second line" in next(tmp_path.glob("beam-retrain-*.log")).read_text()


def _stats(bad: int, inputs: int = 1_000) -> Stats:
  return Stats({}, {"EMPTY": bad} if bad else {}, inputs, inputs - bad, bad, bad / inputs)


def test_no_bad_inputs_is_done_without_a_word(capsys):
  assert exit_code(_stats(0), "/out", 0.0) == ExitCode.DONE
  assert exit_code(_stats(0), "/out", 0.0, gate_missed=True) == ExitCode.GATE_MISSED
  assert capsys.readouterr() == ("", "")


def test_accepted_losses_are_done_and_told(capsys):
  assert exit_code(_stats(2), "/out", 0.002) == ExitCode.DONE
  assert capsys.readouterr() == ("2 of 1000 inputs left out (2 EMPTY), listed in /out/quarantine.csv\n", "")


@pytest.mark.parametrize("bad", [1, 2, 3, 37, 999, 1_000])
@pytest.mark.parametrize("inputs", [1_000, 1_797, 70_000])
def test_more_losses_than_accepted_are_3_and_the_remedy_it_names_works(bad, inputs, capsys):
  stats = _stats(bad, inputs)
  assert exit_code(stats, "/out", 0.0) == ExitCode.TOO_MANY_BAD
  said = capsys.readouterr().err
  assert f"{bad} of {inputs} inputs {'is' if bad == 1 else 'are'} bad ({bad} EMPTY): see /out/quarantine.csv" in said
  named = re.search(r"the loss with --max_bad_fraction=([0-9.e-]+) and run the command again\.$", said)
  assert named, said
  assert exit_code(stats, "/out", float(named[1])) == ExitCode.DONE
  assert exit_code(stats, "/out", float(named[1]), gate_missed=True) == ExitCode.GATE_MISSED
  assert exit_code(stats, "/out", 0.0, gate_missed=True) == ExitCode.TOO_MANY_BAD


def test_what_worker_processes_say_for_us_is_told_once_and_nothing_else(tmp_path):
  # A process of its own: pytest has put something else in the place of the descriptor.
  code = """
import os
from beam_retrain.pipelines.jobs.capture import capture_output
with capture_output():
  for _ in range(2):
    os.write(2, b"beam-retrain: a store is damaged\\nsome warning\\n")
"""
  ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert ran.stderr == "beam-retrain: a store is damaged\n"


def test_what_beam_says_in_any_way_is_kept_from_the_terminal_also_when_python_ends():
  code = """
import atexit, logging, sys
from beam_retrain.pipelines.jobs.capture import capture_output
logging.basicConfig(level=logging.WARNING)
for number in range(2):
  with capture_output() as terminal:
    atexit.register(print, "a job server is stopped", file=sys.stderr)
    atexit.register(logging.error, "really destroying it")
    logging.error("an engine's message")
    print("a worker's traceback", file=sys.stderr)
    print(f"progress {number}", file=terminal)
logging.error("heard again")
"""
  ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert ran.stderr == "progress 0\nprogress 1\nERROR:root:heard again\n"


def test_what_beam_says_is_kept_from_a_stream_that_is_no_file_too():
  code = """
import io, logging, sys
from beam_retrain.pipelines.jobs.capture import capture_output
sys.stderr = stream = io.StringIO()  # as in a notebook
logging.basicConfig(level=logging.WARNING)
with capture_output() as terminal:
  logging.error("an engine's message")
  print("a worker's traceback", file=sys.stderr)
  print("progress", file=terminal)
print(stream.getvalue(), end="")
"""
  ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert (ran.stdout, ran.stderr) == ("progress\n", "")


def test_a_forked_worker_that_is_killed_before_it_is_told_anything_ends_the_job_with_the_same_words():
  code = """\
import os, signal, time
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from beam_retrain.pipelines.jobs import forked_workers
from beam_retrain.pipelines.jobs import local_runner as local_workers
from beam_retrain.transforms.core.errors import InputError
options = PipelineOptions(flags=["--direct_num_workers=1"])
pipeline = beam.Pipeline(options=options)
pipeline | beam.Create([1]) | beam.Reshuffle()  # whose first stage is waited for, for what it gives
try:
  with local_workers.raise_on_worker_death(), forked_workers.forked_workers(1, options) as runner:
    pid = forked_workers._WAITING[0].pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    pipeline.runner = runner
    pipeline.run()
except InputError as error:
  print(error)
"""
  ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
  assert ended.stdout.startswith("a worker process was killed"), ended.stderr
