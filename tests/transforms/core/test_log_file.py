"""Each command that has an output leaves a log in it, which stays small and is none of its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.log_file import LOG_FILE, keep_in
from beam_retrain.transforms.core.printing import Level, detail, print, say, set_level
from beam_retrain.transforms.core.run.contents import read_list
from beam_retrain.transforms.core.run.exit_codes import run_command
from beam_retrain.transforms.core.run.output_folder import claim_folder, complete_folder
from beam_retrain.transforms.core.run.run_info import describe_run
from beam_retrain.transforms.core.system import local_files


def _work(output: Path, *, lines: int = 0, error: Exception | None = None, argv: tuple[str, ...] = ()) -> int:
  """A command that says something before and after it has claimed its output."""

  def run(argv) -> int:
    set_level(Level.QUIET)
    say("looking at a\nb")
    claim_folder(str(output), describe_run("convert", {}, argv), owned=[], work_folder=".shards")
    print("result")
    detail("why")
    for number in range(lines):
      detail(f"{number:09d}" * 11)
    if error:
      raise error
    complete_folder(str(output))
    return 0

  try:
    return run_command(run, ["convert", *argv])
  finally:
    set_level(Level.NORMAL)


def _read(output: Path) -> list[str]:
  """The lines of a log, without their times."""
  lines = (output / LOG_FILE).read_text().splitlines()
  times = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ")
  return [times.sub("", line) for line in lines]


def test_what_is_printed_and_what_is_not_are_kept_in_the_order_of_time(tmp_path, capsys):
  assert _work(tmp_path / "out", argv=("--input=a b", "--s3_session_token=secret")) == 0
  assert capsys.readouterr() == ("result\n", "")
  command, about, *lines = _read(tmp_path / "out")
  assert command == "beam-retrain convert '--input=a b' --s3_session_token=..."
  assert re.match(r"process \d+ on .*: python 3\.", about)
  assert lines == ["looking at a\\nb", "result", "why", "exit code 0"]
  listed = [entry.path for entry in read_list(str(tmp_path / "out"), local_files)]
  assert "info.json" in listed
  assert LOG_FILE not in listed


@pytest.mark.parametrize("error", [InputError("images are bad: repair them."), ValueError("a bug")])
def test_a_failure_is_there_with_its_traceback_and_a_rerun_adds_to_it(tmp_path, error, capsys):
  assert _work(tmp_path / "out", error=error) == 2
  assert _work(tmp_path / "out") == 0
  lines = _read(tmp_path / "out")
  assert [line for line in lines if line.startswith("beam-retrain convert")] == ["beam-retrain convert"] * 2
  assert any(line.startswith("beam-retrain: ") and str(error) in line for line in lines)
  assert "Traceback (most recent call last):" in lines
  assert lines[-1] == "exit code 0"
  assert "Traceback" not in capsys.readouterr().err


def test_it_stays_bounded_whatever_is_printed_and_however_often(tmp_path):
  for _ in range(3):
    assert _work(tmp_path / "out", lines=12_000) == 0
  assert 1 << 20 < (tmp_path / "out" / LOG_FILE).stat().st_size < 3 << 20
  lines = _read(tmp_path / "out")
  assert lines[-2:] == ["what follows is too much to be kept", "exit code 0"]
  assert lines.count("beam-retrain convert") == 1  # the last


def test_no_output_no_log(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert run_command(lambda argv: print("no place for this") or 0, ["predict"]) == 0
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.tex").write_text("")
  assert _work(tmp_path / "mine") == 2  # is not empty and was not written by beam-retrain
  assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


class _Remote:
  """Real files that are said to be remote."""

  def __init__(self) -> None:
    self.written: list[str] = []
    self.exists, self.read_bytes = local_files.exists, local_files.read_bytes

  def is_local(self, path: str) -> bool:
    return False

  def write_bytes(self, path: str, data: bytes) -> None:
    self.written.append(path)
    local_files.write_bytes(path, data)


def test_in_an_object_store_it_is_written_once_at_the_end(tmp_path):
  remote = _Remote()

  def run(argv) -> int:
    keep_in(str(tmp_path), remote)
    keep_in(str(tmp_path / "a stage"), remote)
    print("result")
    return len(remote.written)

  assert run_command(run, ["train"]) == 0
  assert run_command(run, ["train"]) == 1
  assert remote.written == [str(tmp_path / LOG_FILE)] * 2
  assert [line for line in _read(tmp_path) if "process" not in line] == [
    *("beam-retrain train", "result", "exit code 0"),
    *("beam-retrain train", "result", "exit code 1"),
  ]
