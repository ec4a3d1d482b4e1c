"""What gets loaded by whom, tried in a new process; who may import whom is `lint-imports`' (pyproject.toml).

A rule's modules are found by walking the rooms, so that a new file is under the rules from its first day.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageOps

from beam_retrain.pipelines.cli import COMMANDS, main
from beam_retrain.transforms.sources.base import sample_hash
from tests.helpers import ROOT

_TENSORFLOW = {"tensorflow", "tensorflow_hub", "tensorflow_transform", "keras", "tf_keras", "tfx_bsl"}
_WITHOUT_TENSORFLOW = (
  "errors",
  "images.decode_plain",
  "images.encode",
  "images.headers",
  "images.idx",
  "images.thumbnails",
  "metrics.comparison",
  "metrics.statistics",
  "metrics.label_stats",
  "metrics.predictions",
  "models.head",
  "models.inference",
  "models.moments",
  "models.transform_graph",
  "records.csv_format",
  "records.example",
  "records.quarantine",
  "records.schema",
  "records.shards",
  "records.slice_manifest",
  "records.splits",
  "records.tfrecord",
  "run.exit_codes",
  "run.flags",
  "run.output_folder",
  "run.run_info",
  "run.stats",
  "runtimes.prepared",
  "runtimes.variant",
  "models.farmhash",
  "system.imports",
  "system.machine",
  "system.prefetch",
)


def _modules(room: str) -> dict[str, Path]:
  """Returns module name -> file of everything in a room."""
  found = {}
  for path in sorted((ROOT / room).rglob("*.py")):
    parts = ("beam_retrain", *path.relative_to(ROOT).with_suffix("").parts)
    found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return found


def _is_in(name: str, package: str) -> bool:
  return name == package or name.startswith(f"{package}.")


def _loaded_by(modules: list[str]) -> set[str]:
  """Imports the modules in a new process and returns what is then in `sys.modules`."""
  assert modules, "nothing to import: the rule would check nothing"
  return _loaded_after(f"for name in {modules!r}: importlib.import_module(name)\n")


def _loaded_after(code: str) -> set[str]:
  code = f"import gc, importlib, json, sys\ngc.disable()\n{code}"
  code += "print('\\nloaded', json.dumps(sorted(sys.modules)))\ngc.freeze()"
  ended = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
  )
  assert ended.returncode == 0, ended.stderr[-3_000:]
  (line,) = [line for line in ended.stdout.splitlines() if line.startswith("loaded ")]
  return set(json.loads(line.removeprefix("loaded ")))


def _core_without_tensorflow() -> list[str]:
  return [
    name
    for name in _modules("transforms/core")
    if name.removeprefix("beam_retrain.transforms.core.") in _WITHOUT_TENSORFLOW
  ]


def test_the_walk_finds_the_rooms():
  assert {f"beam_retrain.transforms.core.{name}" for name in _WITHOUT_TENSORFLOW} <= _modules("transforms").keys()
  assert {
    "beam_retrain.transforms.core.models.inception",
    "beam_retrain.transforms.shards.work",
    "beam_retrain.transforms.shards.ledger",
  } <= _modules("transforms").keys()
  stages = ("bottlenecks", "cli", "convert", "evaluate", "jobs.runner")
  assert {f"beam_retrain.pipelines.{name}" for name in stages} <= _modules("pipelines").keys()
  assert "beam_retrain.trainer.task" in _modules("trainer")
  assert "beam_retrain.reporting" in _modules("reporting")


def test_files_and_records_load_no_tensorflow():
  loaded = _loaded_by(_core_without_tensorflow())
  assert not loaded & (_TENSORFLOW | {"apache_beam"})
  assert "beam_retrain.transforms.core.images.idx" in loaded


def test_neither_converting_nor_a_night_without_new_images_need_load_tensorflow():
  stages = ("pipelines.convert", "transforms.convert", "pipelines.reevaluate.command")
  loaded = _loaded_by([f"beam_retrain.{name}" for name in stages])
  assert not loaded & _TENSORFLOW
  assert "apache_beam" in loaded


def test_a_job_by_openvino_loads_no_tensorflow(bundled_digits, tmp_path):
  """Once the trunk is prepared, and the transform graph is known for so many labels."""
  for path in sorted((bundled_digits / "data").rglob("*.png")):
    jpg = tmp_path / "data" / path.relative_to(bundled_digits / "data").with_suffix(".jpg")
    jpg.parent.mkdir(parents=True, exist_ok=True)
    Image.open(path).save(jpg) if len(path.stem) == 3 else shutil.copy(path, jpg.with_suffix(".png"))
  flags = [f"--input={tmp_path / 'data'}", "--trunk=bundled", "--runtime=openvino", "--testing_percentage=30"]
  assert main(["bottlenecks", *flags, f"--output={tmp_path / 'first'}"]) == 0
  assert not _loaded_by_command("bottlenecks", *flags, f"--output={tmp_path / 'second'}") & _TENSORFLOW


def test_a_night_with_new_images_by_openvino_loads_no_tensorflow(bundled_digits, tmp_path):
  """Though one of them is among those that are drawn to be checked."""
  data = shutil.copytree(bundled_digits / "data", tmp_path / "data")
  night = ["reevaluate", f"--model={bundled_digits / 'model'}", f"--input={data}", f"--history={tmp_path / 'nights'}"]
  assert main([*night, "--date=2026-11-29"]) == 0
  key = min((f"cow/new{number}.png" for number in range(10_000)), key=sample_hash)
  pixels = ImageOps.invert(Image.open(next((data / "cow").iterdir())).convert("L"))
  pixels.save(data / key)
  assert not _loaded_by_command(*night, "--date=2026-11-30") & _TENSORFLOW
  metrics = json.loads((tmp_path / "nights/2026-11-30/metrics.json").read_text())
  assert metrics["bottlenecks"]["computed"] == 1


def _loaded_by_command(*command: str) -> set[str]:
  job = "import sys; from beam_retrain.pipelines.cli import main; code = main(sys.argv[1:]);"
  job += " print('loaded', code, *sys.modules); raise SystemExit(code)"
  started = [sys.executable, "-c", job, *command]
  ended = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
  assert ended.returncode == 0, ended.stderr[-3_000:]
  (line,) = [line for line in ended.stdout.splitlines() if line.startswith("loaded ")]
  return set(line.split())


def test_neither_core_nor_the_trainer_loads_beam():
  trainer = [name for name in _modules("trainer") if name.split(".")[-1] != "__main__"]
  loaded = _loaded_by([*_modules("transforms/core"), *trainer])
  assert not {name for name in loaded if _is_in(name, "apache_beam") or _is_in(name, "beam_retrain.pipelines")}


def test_reports_load_neither_beam_nor_tensorflow():
  assert not _loaded_by(list(_modules("reporting"))) & (_TENSORFLOW | {"apache_beam"})


def test_jobs_do_not_load_the_trainer():
  chains = {"cli", "train", "run", "stages", "compat"}  # they run the trainer, on the machine that they are started on
  jobs = [name for name in _modules("pipelines") if not {"__main__", *chains} & {*name.split(".")}]
  assert not {name for name in _loaded_by(jobs) if _is_in(name, "beam_retrain.trainer")}


def test_the_command_line_loads_a_stage_only_when_it_is_asked_for():
  loaded = _loaded_by(["beam_retrain.pipelines.cli"])
  stages = {"convert", "bottlenecks", "evaluate", "predict", "reevaluate", "run"}
  assert not loaded & ({f"beam_retrain.pipelines.{stage}" for stage in stages} | _TENSORFLOW)
  assert not {name for name in loaded if _is_in(name, "beam_retrain.trainer")}


_QUESTIONS = [
  *([command, given] for command in COMMANDS for given in ("--help", "--inputt=x")),
  ["label_image", "--process_mode=2", "--inputt=x"],
  ["--help"],
  ["--version"],
  ["--print_completion=bash"],
]


def test_help_and_a_wrong_flag_are_answered_without_what_takes_seconds_to_load():
  code = f"from beam_retrain.pipelines import cli\nfor argv in {_QUESTIONS!r}:\n"
  code += "  try: cli.main(argv)\n  except SystemExit: pass\n"
  loaded = _loaded_after(code)
  packages = {name.split(".")[0] for name in loaded}
  assert "beam_retrain" in packages
  assert not packages & (_TENSORFLOW | {"apache_beam", "numpy", "PIL", "matplotlib", "jinja2", "pyarrow"})
  assert "google.protobuf" not in loaded  # `google` itself is loaded by Python, where a .pth file says so


def test_an_engine_s_flags_import_no_more_of_beam_than_a_job_without():
  # In a folder that does not exist: the job is refused before there is an engine.
  code = "from beam_retrain.pipelines import cli\nimport sys\n"
  code += (
    "sys.argv[1:] = ['bottlenecks', '--input=none', '--output=none', '--runner=SparkRunner', '--spark_master_url=x']\n"
  )
  code += "cli.main()\n"
  loaded = _loaded_after(code)
  assert "apache_beam.options.pipeline_options" in loaded
  assert not loaded & {"pandas", "pyarrow", "boto3"}


def test_the_digits_are_read_without_scikit_learn(tmp_path):
  loaded = _loaded_after(f"from beam_retrain.pipelines import datasets\ndatasets.digits({str(tmp_path)!r})\n")
  assert not loaded & {"sklearn", "scipy"}
  assert len(list(tmp_path.iterdir())) == 4


def test_thumbnails_of_small_jpegs_and_pngs_load_no_tensorflow():
  code = "import io\nfrom PIL import Image\nfrom beam_retrain.transforms.core.images.thumbnails import thumbnail\n"
  code += "for kind in ('JPEG', 'PNG'):\n  for mode in ('L', 'RGB'):\n    file = io.BytesIO()\n"
  code += "    Image.new(mode, (28, 28)).save(file, kind)\n    assert thumbnail(file.getvalue()), (kind, mode)\n"
  loaded = _loaded_after(code)
  assert "beam_retrain.transforms.core.images.thumbnails" in loaded
  assert not loaded & _TENSORFLOW
