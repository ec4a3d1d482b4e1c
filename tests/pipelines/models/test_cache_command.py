"""The cache is shown and cleared, but for what a running command uses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_retrain.pipelines import cli
from beam_retrain.transforms.io import cache

_MAKE = """
import os, sys
from beam_retrain.transforms.io import cache
def write(folder):
  with open(os.path.join(folder, "weights"), "wb") as file:
    file.write(bytes(2000))
cache.write_source("one", {"a": 1})
for name in sys.argv[1:]:
  print(cache.get_or_create(f"trunks/{name}", write), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path / "cache"))
  return tmp_path / "cache"


def start(*names: str) -> subprocess.Popen[str]:
  """Starts a command that makes entries, or finds them, and uses them until its input ends."""
  process = subprocess.Popen(
    [sys.executable, "-c", _MAKE, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout
  for _ in names:
    assert process.stdout.readline()
  return process


def end(process: subprocess.Popen[str]) -> None:
  process.communicate("")
  assert process.returncode == 0


def test_an_empty_cache_is_one_sentence(folder, capsys):
  for flags in ([], ["--clear"]):
    assert cli.main(["cache", *flags]) == 0
    assert capsys.readouterr().out == f"the cache {folder} is empty\n"


def test_what_is_there_is_shown_with_its_size_and_its_last_use(folder, capsys):
  end(start(f"{'a' * 64}/saved_model", "b/openvino-bfloat16-1"))
  long_ago = time.time() - 40 * 86400
  os.utime(folder / "trunks/b/openvino-bfloat16-1/cache.json", (long_ago, long_ago))
  assert cli.main(["cache"]) == 0
  first, empty, header, *rows = capsys.readouterr().out.splitlines()
  assert re.fullmatch(f"{folder}: 3 entries, 4.[2-6] kB", first)
  assert (empty, header.split()) == ("", ["last", "used", "size", "entry"])
  assert [row.split()[-1] for row in rows] == [
    "trunks/aaaaaaaaaaaa.../saved_model",
    "sources",
    "trunks/b/openvino-bfloat16-1",
  ]
  assert rows[2].startswith(time.strftime("%Y-%m-%d %H:%M", time.localtime(long_ago)))


def test_what_a_running_command_uses_stays_and_the_rest_goes(folder, capsys):
  end(start("a/idle", "b/used"))
  works = start("b/used")
  assert cli.main(["cache", "--clear"]) == 0
  assert re.match("removed 2 entries, 2.* from .*; running commands use 1 other\n", capsys.readouterr().out)
  assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == [
    *("trunks", "trunks/b", "trunks/b/used", "trunks/b/used/cache.json", "trunks/b/used/weights")
  ]
  end(works)
  assert cli.main(["cache", "--clear"]) == 0
  assert list(folder.rglob("*")) == [folder / "trunks"]


def test_only_what_was_not_used_for_long_goes_and_use_makes_it_young(folder, capsys):
  end(start("a/old", "b/new", "c/used"))
  for name in ("a/old", "c/used"):
    os.utime(folder / "trunks" / name / "cache.json", (0, 0))
  end(start("c/used"))
  assert cli.main(["cache", "--clear", "--older_than=30"]) == 0
  assert re.match("removed 1 entry, 2.* from .*; 3 newer ones kept\n", capsys.readouterr().out)
  assert sorted(entry.name for entry in cache.entries()) == ["sources", "trunks/b/new", "trunks/c/used"]


def test_an_age_alone_is_one_sentence(capsys):
  assert cli.main(["cache", "--older_than=30"]) == 2
  assert capsys.readouterr().err == "beam-retrain: --older_than says what --clear removes: add that, or leave it out.\n"
