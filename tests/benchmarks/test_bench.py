"""The benchmark but for its contenders: the protocol, the images, processes, environments and the table.

The peers themselves are not run: they need gigabytes of their own environments.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from benchmarks import bench, charts, environments, versions, where
from benchmarks.bench_inputs import link_some
from benchmarks.bench_tables import make_claims, make_table
from benchmarks.contenders import CONTENDERS, OTHERS
from benchmarks.measurements import Run
from benchmarks.network import fold_batch_norms
from benchmarks.ours import stamp_batches
from benchmarks.peers.protocol import ahead
from benchmarks.processes import ProcessError, run_process

_PEERS = Path(bench.__file__).parent / "peers"

# A contender as the peers are, which only tells how long each path is.
_CONTENDER = """
from benchmarks.peers.protocol import ahead, end_of_batch, hand_back, read_task
task = read_task(("float32", "int8"))
vectors, ends = [], []
for made in ahead(lambda paths: [[len(path)] for path in paths], task.batches):
  vectors += made
  ends.append(end_of_batch(len(made)))
hand_back(task, vectors, ends, {"threads": task.threads})
"""


def test_a_contender_reads_its_task_and_hands_back_what_was_done(tmp_path):
  for name in ("b/10.jpg", "a/3.jpg", "b/2.jpg", "b/notes.txt"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  output = tmp_path / "result.json"
  task = [f"--pictures={tmp_path}", f"--network={tmp_path}", f"--output={output}", "--batch_size=2", "--threads=3"]
  run_process([sys.executable, "-c", _CONTENDER, *task], tmp_path / "log", {})
  result = json.loads(output.read_text())
  assert result["images"] == 3
  assert [images for _, _, images in result["ends"]] == [2, 1]
  assert result["settings"] == {"threads": 3}
  lengths = [len(str(tmp_path / name)) for name in ("a/3.jpg", "b/10.jpg", "b/2.jpg")]
  assert np.load(tmp_path / result["vectors"], allow_pickle=False).ravel().tolist() == lengths

  with pytest.raises(ProcessError, match=r"exit code 2 .*bfloat16"):
    run_process([sys.executable, "-c", _CONTENDER, *task, "--precision=bfloat16"], tmp_path / "log", {})


def test_a_fault_of_the_thread_ahead_is_raised():
  with pytest.raises(ZeroDivisionError):
    list(ahead(lambda item: 1 / item, [2, 1, 0, 1]))
  assert list(ahead(lambda item: 2 * item, range(20))) == [2 * item for item in range(20)]


def test_ours_is_stamped_for_each_64_bottlenecks_and_a_shards_rest():
  ends = []
  assert list(stamp_batches(iter(range(150)), ends)) == list(range(150))
  assert [images for _, _, images in ends] == [64, 64, 22]
  assert list(stamp_batches(iter(range(64)), ends)) == list(range(64))
  assert [images for _, _, images in ends] == [64, 64, 22, 64]


def test_a_process_is_timed_whole_and_its_failure_told(tmp_path):
  found = run_process([sys.executable, "-c", "b = bytearray(200 << 20)"], tmp_path / "log", {})
  assert found.peak_mb > 200
  started = time.perf_counter()
  with pytest.raises(ProcessError, match="no end after 0"):
    run_process(["sleep", "60"], tmp_path / "log", {}, max_secs=0.3)
  assert time.perf_counter() - started < 30
  with pytest.raises(ProcessError, match=r"exit code 3 \(no such network\)"):
    run_process(["sh", "-c", "echo no such network; exit 3"], tmp_path / "log", {})


def test_the_images_are_spread_over_the_labels(tmp_path):
  for label in "abc":
    (tmp_path / "all" / label).mkdir(parents=True)
    for number in range(12):
      (tmp_path / "all" / label / f"{number}.jpg").touch()
  link_some(tmp_path / "all", tmp_path / "some", 7)
  linked = sorted(path.relative_to(tmp_path / "some").as_posix() for path in (tmp_path / "some").rglob("*.jpg"))
  of_training = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg"]
  assert linked == [f"testing/{label}/0.jpg" for label in "abc"] + [f"training/{name}" for name in of_training]


def test_a_folded_batch_norm_gives_the_same_numbers():
  rng = np.random.default_rng(5)
  variables = {"conv2d_1/kernel": rng.normal(size=(1, 1, 3, 4))}
  for name in ("beta", "moving_mean", "moving_variance"):
    variables[f"batch_normalization_1/{name}"] = rng.uniform(0.5, 2, 4)
  pixel = rng.normal(size=3)
  beta, mean, variance = list(variables.values())[1:]
  expected = (pixel @ variables["conv2d_1/kernel"][0, 0] - mean) / np.sqrt(variance + 1e-3) + beta
  folded = fold_batch_norms(variables)
  np.testing.assert_allclose(pixel @ folded["kernel_1"][0, 0] + folded["bias_1"], expected)


def test_an_environment_is_made_again_when_its_requirements_change(tmp_path, monkeypatch):
  monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
  made = tmp_path / "made" / "peer"
  made.mkdir(parents=True)
  requirements = tmp_path / "peer.txt"
  requirements.write_text("# nothing\n")
  (made / ".made_of").write_text(hashlib.sha256(requirements.read_bytes()).hexdigest())
  assert environments.make_environment("peer", tmp_path / "made") == made / "bin" / "python"
  assert not (made / "bin").exists()
  requirements.write_text(f"{tmp_path}/no-such-wheel.whl\n")
  with pytest.raises(InputError, match=r"environment of peer cannot be made .*no-such-wheel"):
    environments.make_environment("peer", tmp_path / "made")
  assert not (made / ".made_of").exists()  # what failed is not taken for made


def test_every_contender_has_its_script_and_its_requirements_pinned():
  for contender in CONTENDERS:
    script = _PEERS / f"{contender.module}.py"
    assert script.is_file() == contender.is_peer
    if contender.is_peer:
      assert f'"{contender.precision}"' in script.read_text(), contender.name
  used = {contender.environment for contender in CONTENDERS} - {""} | {"cleanlab"}  # of `benchmarks.label_errors`
  assert set(environments.environment_names()) == used
  for name in used:
    for line in (_PEERS / f"{name}.txt").read_text().splitlines():
      assert re.fullmatch(r"#.*|[a-z\[\]-]+==[\d.]+", line), line
  names = [contender.name for contender in CONTENDERS]
  assert len(names) == len(set(names))
  assert not {other.what for other in OTHERS} & set(names)


def test_peers_import_nothing_of_this_project_but_one_another():
  for script in _PEERS.glob("*.py"):
    for node in ast.walk(ast.parse(script.read_text())):
      names = [node.module] if isinstance(node, ast.ImportFrom) else []
      names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
      for name in names:
        room = name.split(".")[0]
        assert room not in ("pipelines", "transforms", "trainer", "reporting"), f"{script.name}: {name}"
        assert room != "benchmarks" or name.startswith("benchmarks.peers."), f"{script.name}: {name}"


def test_the_table_has_ratios_beside_ours_and_names_what_is_missing():
  many, some = "2,000 images", "512 images"
  results = {
    f"beam-retrain, bfloat16, {many}": [Run(2000, 160.0, 14.0, 700), Run(2000, 162.0, 16.0, 800)],
    f"beam-retrain, bfloat16, {some}": [Run(512, None, 5.0, 700)],
    f"beam-retrain 0.4, bfloat16, {some}": [Run(512, None, 10.0, 700)],
    f"Keras predict, bfloat16, {some}": [Run(512, 40.25, 20.0, 900, 0.99912)],
    f"bare graph, int8, {some}": [Run(512, 300.0, 4.0, 500, ready_secs=1.84)],
  }
  limits = {"bfloat16": {"gflops": 3670.8, "how": "by hand"}}
  claim = ["a night, of the first", 0.25, 0.2]
  row = {"name": "convert --formats jpg", "seconds": 4.0, "ratio": 0.4, "against": "the loop", "claim": claim}
  others = {"JPGs": [row]}
  faults = {f"OpenVINO, int8, {many}": "no wheel", "growth": "exit code 1"}
  text = make_table(results, limits, others, faults)
  rows = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines()}
  assert rows >= {
    (f"bottlenecks, bfloat16, {many}", "beam-retrain", "161/s", "1.00", "15.0 s", "1.00", "800 MB, median of 2"),
    (f"bottlenecks, bfloat16, {some}", "beam-retrain 0.4", "-", "-", "10.0 s", "0.50", "700 MB"),
    (f"bottlenecks, bfloat16, {some}", "Keras predict", "40.2/s", "0.25", "20.0 s", "0.25", "cosine 0.99912, 900 MB"),
    (
      "bottlenecks, bfloat16",
      "matrix product",
      "322/s",
      "2.00",
      "-",
      "-",
      "3,671 GFLOP/s, by hand; 11.4 GFLOP an image",
    ),
    (
      *(f"bottlenecks, int8, {some}", "bare graph", "300/s", "-", "4.0 s", "-"),
      "500 MB, loaded, first batch done in 1.8 s",
    ),
    (f"bottlenecks, int8, {many}", "OpenVINO", "-", "-", "-", "-", "not measured: no wheel"),
    ("JPGs", "convert --formats jpg", "-", "-", "4.0 s", "of the loop: 0.40", ""),
    ("growth", "-", "-", "-", "-", "-", "not measured: exit code 1"),
  }
  claims = [str(claim) for claim in make_claims(results, others)]
  assert any(re.match(r"yes .*best peer's \(Keras predict\): 4\.00, at least 1$", claim) for claim in claims)
  assert any(re.match(r"yes .*512 images, whole process.*\(Keras predict\): 4\.00, at least 1$", c) for c in claims)
  assert any(re.match(r"NO .*a night, of the first: 0\.25, at most 0\.2$", claim) for claim in claims)


def test_the_chart_has_a_bar_for_each_who_was_measured(tmp_path):
  run = {"images": 512, "whole_secs": 4.0}
  results = {"beam-retrain, int8, 512 images": [run, {**run, "whole_secs": 2.0}, run]}
  charts.draw(
    {"results": results, "where": {"beam-retrain": {"trunk": 3.0, "importing Beam": 0.5}}}, tmp_path / "a.svg"
  )
  charts.draw({"results": results, "where": {}}, tmp_path / "b.svg")
  one, other = ((tmp_path / name).read_text() for name in ("a.svg", "b.svg"))
  for text in ("beam-retrain 0.4", "OpenVINO", "512 images", "importing Beam", "where the seconds go"):
    assert text in one
  assert "importing Beam" in other  # the legend
  assert one.count("<path") > other.count("<path")


def test_where_tells_what_a_command_is_doing(tmp_path):
  packages = tmp_path / "site-packages" / "apache_beam"
  packages.mkdir(parents=True)
  (packages / "__init__.py").write_text("import time\ntime.sleep(0.4)\n")
  (packages / "runner.py").write_text("import time\ndef run():\n  time.sleep(0.8)\n")
  (tmp_path / "job.py").write_text(
    f"import sys; sys.path.insert(0, {str(packages.parent)!r})\n"
    "import apache_beam.runner as beam\nbeam.run()\nassert sys.argv[1:] == ['--flag']\n"
  )
  command = [sys.executable, where.__file__, str(tmp_path / "seconds.json"), "job", "--flag"]
  subprocess.run(command, cwd=tmp_path, check=True, env={"PATH": ""})
  found = json.loads((tmp_path / "seconds.json").read_text())
  assert min(found["seconds"][kind] for kind in ("Beam at work", "importing Beam")) > 0.2
  assert found["cpu"] > 0


def test_disk_counts_a_file_of_two_names_once(tmp_path):
  for name in ("one", "other"):
    (tmp_path / name).mkdir()
  (tmp_path / "one" / "trunk").write_bytes(bytes(2_000_000))
  os.link(tmp_path / "one" / "trunk", tmp_path / "other" / "trunk")
  alone = versions.disk_mb([tmp_path / "one"])
  assert versions.disk_mb([tmp_path / "one", tmp_path / "other"]) == alone >= 2


def test_its_command_line_refuses_what_it_does_not_know():
  done = subprocess.run(
    [sys.executable, "-m", "benchmarks.bench", "--imagess=3"], cwd=_PEERS.parents[1], capture_output=True, text=True
  )
  assert done.returncode == 2
  assert "--images" in done.stderr
  assert "Traceback" not in done.stderr
