"""One command writes an output folder at a time; what a killed one left in the way goes with the next."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.output_folder import complete_folder
from beam_retrain.transforms.core.system.local_files import is_empty
from beam_retrain.transforms.core.system.locks import hold_folder
from tests.helpers import ROOT, file_contents, wait_until_held
from tests.pipelines.compat.label_image_suite import graphs, labels, tf1_graph
from tests.pipelines.jobs.outrun_suite import check_that_it_leaves_the_output_alone

__all__ = ["graphs", "labels", "tf1_graph"]  # fixtures

_HOLDER = """
import sys
from beam_retrain.transforms.core.system.locks import hold_folder
with hold_folder(sys.argv[1], "beam-retrain convert"):
  print(flush=True)
  sys.stdin.read()
"""


def _hold(folder: Path) -> subprocess.Popen[str]:
  command = [sys.executable, "-c", _HOLDER, str(folder)]
  process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  assert process.stdout.readline() == "\n"
  return process


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
  """An output folder that another process writes, and its id."""
  folder = tmp_path_factory.mktemp("held") / "output"
  holder = _hold(folder)
  (folder / "info.json").write_text("of the first one")
  yield folder, holder.pid
  holder.communicate("")


# With inputs that do not exist: nothing is looked at before the folder is held.
@pytest.mark.parametrize(
  "command",
  [
    ["convert", "--input=none"],
    ["bottlenecks", "--input=none"],
    ["train", "--input=none"],
    ["evaluate", "--input=none", "--model=none"],
    ["run", "--data=none"],
  ],
  ids=lambda command: command[0],
)
def test_a_second_command_ends_at_once_and_names_the_first(command, held, capsys):
  _is_refused([*command, f"--output={held[0]}"], held, capsys)


def test_label_image_keeps_out_of_a_folder_that_is_written(held, tf1_graph, small_images, capsys):
  flags = [*tf1_graph.flags, "--process_mode=2", f"--directory_name={small_images}"]
  _is_refused(["label_image", *flags, f"--output={held[0]}"], held, capsys)


def _is_refused(argv: list[str], held: tuple[Path, int], capsys: pytest.CaptureFixture[str]) -> None:
  folder, process = held
  before = file_contents(folder)
  assert main(argv) == ExitCode.FAILED
  said = capsys.readouterr().err.splitlines()[-1]
  start = f"beam-retrain: {folder} is being written by another command (`beam-retrain convert`, process {process} on "
  assert said.startswith(f"{start}{os.uname().nodename} since 20")
  assert said.endswith("): wait until it ends, stop it, or give another --output.")
  assert file_contents(folder) == before


def test_a_killed_holder_keeps_nobody_out(tmp_path):
  folder = tmp_path / "new" / "output"
  holder = _hold(folder)
  assert is_empty(str(folder))
  holder.kill()
  holder.communicate()
  assert os.listdir(folder) == [".lock"]
  assert is_empty(str(folder))
  with hold_folder(str(folder), "beam-retrain train"):
    assert f'"process": {os.getpid()}' in (folder / ".lock").read_text()
  assert os.listdir(folder) == []


def test_a_job_that_outlives_its_command_leaves_the_next_one_s_output_alone(tmp_path):
  (tmp_path / "idx").mkdir()
  check_that_it_leaves_the_output_alone(str(tmp_path / "output"), tmp_path / "idx")


def test_nothing_is_completed_without_the_lock(tmp_path):
  with hold_folder(str(tmp_path), "beam-retrain train"):
    (tmp_path / ".lock").unlink()
    with pytest.raises(InputError, match=f"another command took {tmp_path} from this one, or .* was deleted"):
      complete_folder(str(tmp_path))
  assert os.listdir(tmp_path) == []


def test_a_command_that_fails_at_once_leaves_no_folder(tmp_path):
  assert main(["convert", "--input=none", f"--output={tmp_path / 'a' / 'b'}"]) == ExitCode.FAILED
  assert os.listdir(tmp_path) == []


def test_a_lock_file_that_is_not_ours_is_kept(tmp_path):
  (tmp_path / ".lock").write_text("the user's own")
  said = r"/\.lock was not written by beam-retrain: move it away"
  with pytest.raises(InputError, match=said), hold_folder(str(tmp_path), "beam-retrain train"):
    pass
  assert (tmp_path / ".lock").read_text() == "the user's own"


@pytest.fixture
def read_only(tmp_path) -> Iterator[tuple[Path, str]]:
  """A folder that cannot be written, and the system's reason; root may write where it is not mounted read-only."""
  mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], capture_output=True)
  if mounted.returncode:
    tmp_path.chmod(0o500)
  yield tmp_path, os.strerror(errno.EACCES if mounted.returncode else errno.EROFS)
  if not mounted.returncode:
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_folder_that_cannot_be_written_is_one_sentence(read_only, capsys):
  folder, why = read_only
  assert main(["convert", "--input=none", f"--output={folder}"]) == ExitCode.FAILED
  assert capsys.readouterr().err == f"beam-retrain: {folder}/.lock: {why}: fix it, or give another path.\n"


def test_of_two_commands_at_once_one_works_and_what_its_kill_leaves_goes_with_the_next(
  small_images, tmp_path, monkeypatch, capsys
):
  output, temporary = tmp_path / "out", tmp_path / "tmp"
  temporary.mkdir()
  argv = ["bottlenecks", f"--input={small_images}", f"--output={output}", "--validation_percentage=10"]
  argv += ["--trunk=bundled", "--runtime=tensorflow", "--precision=float32"]
  command, environment = [sys.executable, "-m", "beam_retrain", *argv], {**os.environ, "TMPDIR": str(temporary)}
  works = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
  wait_until_held(output / ".lock", works)
  assert main([*argv, "--validation_percentage=20"]) == ExitCode.FAILED
  busy = f"{output} is being written by another command (`beam-retrain bottlenecks`, process {works.pid} on "
  assert capsys.readouterr().err.startswith(f"beam-retrain: {busy}")
  while not list(output.glob("records/.shards/*")):
    assert works.poll() is None
    time.sleep(0.005)
  works.kill()
  works.communicate()
  assert list(temporary.glob("**/beam-pipeline-temp*")), "it was killed too late"
  monkeypatch.setenv("TMPDIR", str(temporary))
  monkeypatch.setattr("tempfile.tempdir", None)
  assert main(argv) == ExitCode.DONE
  assert os.listdir(temporary) == []
  left = {path.relative_to(output).as_posix() for path in output.rglob("*")}
  assert "COMPLETED" in left
  assert not {name for name in left if name.startswith("temp") or ".tmp-" in name or name.endswith(".lock")}
