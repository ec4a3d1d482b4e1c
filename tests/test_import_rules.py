"""Who may import whom: read from the source for every import, and tried in a new process for what gets loaded.

A rule's modules are found by walking the rooms, so that a new file is under the rules from its first day.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_ROOMS = ("pipelines", "transforms", "trainer", "reporting")
_TENSORFLOW = {"tensorflow", "tensorflow_hub", "tensorflow_transform", "keras", "tf_keras", "tfx_bsl"}
_WITHOUT_TENSORFLOW = (
  "calibration",
  "command_line",
  "comparison",
  "csv_cells",
  "encode",
  "errors",
  "example",
  "finished",
  "head",
  "idx",
  "images",
  "intervals",
  "label_stats",
  "manifest",
  "mistakes",
  "predictions",
  "prefetch",
  "prepared",
  "provenance",
  "quarantine",
  "schema",
  "shards",
  "splits",
  "tfrecord",
  "thumbnails",
  "trunk_kind",
)


def _modules(room: str) -> dict[str, Path]:
  """Returns module name -> file of everything in a room."""
  found = {}
  for path in sorted((_ROOT / room).rglob("*.py")):
    parts = path.relative_to(_ROOT).with_suffix("").parts
    found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return found


def _imported(path: Path) -> set[str]:
  """Returns the names that a file imports anywhere, in functions too; `from a import b` counts as `a.b`."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path} has a relative import"
      names.update(f"{node.module}.{alias.name}" for alias in node.names)
  return names


def _is_in(name: str, package: str) -> bool:
  return name == package or name.startswith(f"{package}.")


def _loaded_by(modules: list[str]) -> set[str]:
  """Imports the modules in a new process and returns what is then in `sys.modules`."""
  assert modules, "nothing to import: the rule would check nothing"
  code = f"import gc, importlib, json, sys\ngc.disable()\nfor name in {modules!r}: importlib.import_module(name)\n"
  code += "print('loaded', json.dumps(sorted(sys.modules)))\ngc.freeze()"
  ended = subprocess.run(
    [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, timeout=300, check=False
  )
  assert ended.returncode == 0, ended.stderr[-3_000:]
  (line,) = [line for line in ended.stdout.splitlines() if line.startswith("loaded ")]
  return set(json.loads(line.removeprefix("loaded ")))


def _core_without_tensorflow() -> list[str]:
  return [name for name in _modules("transforms/core") if name.removeprefix("transforms.core.") in _WITHOUT_TENSORFLOW]


def test_the_walk_finds_the_rooms():
  assert {f"transforms.core.{name}" for name in _WITHOUT_TENSORFLOW} <= _modules("transforms").keys()
  assert {"transforms.core.inception", "transforms.shard_work", "transforms.close"} <= _modules("transforms").keys()
  stages = ("bottlenecks", "cli", "convert", "evaluate", "running")
  assert {f"pipelines.{name}" for name in stages} <= _modules("pipelines").keys()
  assert "trainer.task" in _modules("trainer")
  assert "reporting" in _modules("reporting")


def test_the_source_reader_sees_imports_of_every_kind(tmp_path):
  path = tmp_path / "some.py"
  path.write_text("import a.b as c\ndef f():\n  from d.e import g as h, i\n  if f:\n    import j\n")
  assert _imported(path) == {"a.b", "d.e.g", "d.e.i", "j"}


# Of our own, each room imports only these.
_MAY_IMPORT = {
  "transforms/core": ("transforms.core",),
  "transforms": ("transforms",),
  "reporting": ("reporting", "transforms.core"),
  "trainer": ("trainer", "transforms.core"),
  "pipelines": ("pipelines", "transforms", "reporting"),
}


@pytest.mark.parametrize(("room", "allowed"), _MAY_IMPORT.items())
def test_imports_point_one_way(room, allowed):
  ours = (*_ROOMS, "tests", "deploy", "benchmarks")
  for module, path in _modules(room).items():
    may = (*allowed, "trainer") if module == "pipelines.cli" else allowed
    wrong = {
      name
      for name in _imported(path)
      if any(_is_in(name, room) for room in ours) and not any(_is_in(name, package) for package in may)
    }
    assert not wrong, f"{module} imports {sorted(wrong)}"


def test_core_loads_no_beam():
  assert "apache_beam" not in _loaded_by(list(_modules("transforms/core")))


def test_files_and_records_load_no_tensorflow():
  loaded = _loaded_by(_core_without_tensorflow())
  assert not loaded & (_TENSORFLOW | {"apache_beam"})
  assert "transforms.core.idx" in loaded


def test_converting_loads_no_tensorflow():
  loaded = _loaded_by(["pipelines.convert", "transforms.convert"])
  assert not loaded & _TENSORFLOW
  assert "apache_beam" in loaded


def test_a_night_without_new_pictures_need_not_load_tensorflow():
  assert not _loaded_by(["pipelines.reevaluate"]) & _TENSORFLOW


def test_the_trainer_loads_no_beam():
  loaded = _loaded_by([name for name in _modules("trainer") if name.split(".")[-1] != "__main__"])
  assert not {name for name in loaded if _is_in(name, "apache_beam") or _is_in(name, "pipelines")}


def test_reports_load_neither_beam_nor_tensorflow():
  assert not _loaded_by(list(_modules("reporting"))) & (_TENSORFLOW | {"apache_beam"})


def test_jobs_do_not_load_the_trainer():
  jobs = [name for name in _modules("pipelines") if name not in ("pipelines.cli", "pipelines.__main__")]
  assert not {name for name in _loaded_by(jobs) if _is_in(name, "trainer")}


def test_the_command_line_loads_a_stage_only_when_it_is_asked_for():
  loaded = _loaded_by(["pipelines.cli"])
  stages = {"convert", "bottlenecks", "evaluate", "predict", "reevaluate", "run"}
  assert not loaded & ({f"pipelines.{stage}" for stage in stages} | _TENSORFLOW)
  assert not {name for name in loaded if _is_in(name, "trainer")}
