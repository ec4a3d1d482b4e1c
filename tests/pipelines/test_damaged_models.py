"""A trunk or model that is not what was written is never trained on, exported or passed by a gate."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorflow.core.protobuf import saved_model_pb2

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.records.schema import decode_bottleneck, encode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import frame, read_records
from beam_retrain.transforms.core.runtimes.prepared import CARD_FILE
from beam_retrain.transforms.io import cache
from tests.helpers import read_json, without_entry, without_list

GATE = "--min_accuracy=0.6"


@pytest.fixture
def work(bundled_digits: Path, tmp_path: Path) -> Path:
  """A copy of the bottlenecks and the model."""
  for name in ("bottlenecks", "model"):
    shutil.copytree(bundled_digits / name, tmp_path / name)
  (tmp_path / "data").symlink_to(bundled_digits / "data")
  return tmp_path


def change_weights(saved_model: Path) -> None:
  """Changes 300 weights of a graph, the head's among them if it has one."""
  path = saved_model / "saved_model.pb"
  model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
  left, rng = 300, np.random.default_rng(3)
  for function in model.meta_graphs[0].graph_def.library.function:
    for node in function.node_def:
      if left and node.op == "Const" and len((tensor := node.attr["value"].tensor).tensor_content) > 1000:
        weights = np.frombuffer(tensor.tensor_content, np.float32).copy()
        count = min(left, 60)
        weights[rng.choice(len(weights), count, replace=False)] *= -30
        tensor.tensor_content, left = weights.tobytes(), left - count
  assert not left
  path.write_bytes(model.SerializeToString(deterministic=True))


def flip(path: Path) -> None:
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x40
  path.write_bytes(data)


def cut(path: Path) -> None:
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def as_of_0_4(folder: Path) -> None:
  """Removes what bottlenecks of 0.4 do not have: the list, and the digest of the trunk."""
  without_list(folder)
  without_entry(folder / "trunk" / "trunk.json", "saved_model_sha256")


def prepared_file(folder: Path) -> Path:
  prepared = folder / "trunk" / "prepared"
  return prepared / list(read_json(prepared / CARD_FILE)["files"])[-1]


@pytest.mark.parametrize("forget", [lambda _: None, without_list, as_of_0_4], ids=["now", "without list", "as of 0.4"])
@pytest.mark.parametrize(
  "damage",
  [
    lambda bottlenecks: change_weights(bottlenecks / "trunk"),
    lambda bottlenecks: cut(prepared_file(bottlenecks)),
    lambda bottlenecks: (bottlenecks / "trunk/prepared" / CARD_FILE).unlink(),
  ],
  ids=["weights", "prepared", "card"],
)
def test_a_damaged_trunk_is_not_exported(work, damage, forget, capsys):
  forget(work / "bottlenecks")
  damage(work / "bottlenecks")
  capsys.readouterr()
  assert main(["train", f"--input={work}/bottlenecks", f"--output={work}/new"]) == 2
  assert re.search(r": (run|repeat the) `beam-retrain bottlenecks`", capsys.readouterr().err)
  assert not (work / "new").exists()


def test_one_flipped_byte_of_a_trunk_is_noticed(work):
  without_list(work / "bottlenecks")
  flip(work / "bottlenecks/trunk/saved_model.pb")
  assert main(["train", f"--input={work}/bottlenecks", f"--output={work}/new"]) == 2


def test_a_trunk_of_0_4_is_exported_if_it_is_that_of_the_bottlenecks(work):
  as_of_0_4(work / "bottlenecks")
  assert main(["train", f"--input={work}/bottlenecks", f"--output={work}/new"]) == 0


def test_bottlenecks_far_from_float32_are_not_trained_on(work, capsys):
  info = read_json(work / "bottlenecks/info.json")
  info["execution"]["sample"] = {"images": 64, "least_cosine": 0.27}
  (work / "bottlenecks/info.json").write_text(json.dumps(info))
  without_list(work / "bottlenecks")
  assert main(["train", f"--input={work}/bottlenecks", f"--output={work}/new"]) == 2
  assert "the smallest cosine with float32 is 0.27" in capsys.readouterr().err


def first_image(work: Path) -> Path:
  return next((work / "data" / "ant").iterdir())


def change_head(model: Path) -> None:
  with np.load(model / "head.npz") as arrays:
    head = dict(arrays)
  head["kernel"] = np.roll(head["kernel"], 1, axis=1)
  np.savez(model / "head.npz", **head)


INPUTS = {
  "images": lambda work: [f"--input={work}/data"],
  "reused": lambda work: [f"--input={work}/data", f"--reuse={work}/bottlenecks"],
  "stored": lambda work: [f"--input={work}/bottlenecks"],
}


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize(
  "damage",
  [lambda model: change_weights(model / "saved_model"), change_head],
  ids=["weights", "head"],
)
def test_no_gate_passes_a_damaged_model(work, damage, given, capsys):
  without_list(work / "model")
  damage(work / "model")
  capsys.readouterr()
  flags = [f"--model={work}/model", *INPUTS[given](work), GATE]
  assert main(["evaluate", *flags, f"--output={work}/new"]) == 2
  said = capsys.readouterr()
  assert "PASSED" not in said.out
  assert "its exported model answers otherwise" in said.err
  assert not (work / "new").exists()
  if given == "images":
    assert main(["reevaluate", *flags, f"--history={work}/nights", "--date=2026-11-30"]) == 2
    assert not (work / "nights/2026-11-30").exists()


def test_the_gate_passes_the_whole_model_and_says_what_the_figures_are_of(work, capsys):
  for name, give in INPUTS.items():
    flags = [f"--model={work}/model", *give(work), GATE]
    assert main(["evaluate", "-v", *flags, f"--output={work}/{name}"]) == 0
    kind = read_json(work / name / "metrics.json")["trunk_kind"]
    assert kind["figures_of"].startswith({"stored": "the stored bottlenecks, in "}.get(name, "the model's prepared"))
    assert f"figures of {kind['figures_of']}; on a sample of {kind['sample']['images']}" in capsys.readouterr().out
    assert kind["sample"]["least_cosine"] >= kind["bound"]["least_cosine"]
    assert kind["figures_of"].replace("'", "&#39;") in (work / name / "report.html").read_text()


def test_reused_bottlenecks_of_another_trunk_are_noticed(work, capsys):
  """As where an earlier version mixed two runs: the store says that it is of this trunk."""
  without_list(work / "bottlenecks")
  for path in (work / "bottlenecks/records").glob("*.tfrecord"):
    with path.open("rb") as file:
      bottlenecks = [decode_bottleneck(record) for record in read_records(file, path.name)]
    others = (dataclasses.replace(one, vector=np.roll(one.vector, 7)) for one in bottlenecks)
    path.write_bytes(b"".join(frame(encode_bottleneck(one)) for one in others))
  flags = [f"--model={work}/model", *INPUTS["reused"](work)]
  assert main(["evaluate", *flags, f"--output={work}/new"]) == 2
  said = capsys.readouterr()
  assert "its exported model answers otherwise" in said.err
  assert not (work / "new/metrics.json").exists()


def test_label_image_does_not_run_a_damaged_graph_of_ours(work, monkeypatch, capsys):
  monkeypatch.chdir(work)
  flip(work / "model/retrained_graph.pb")
  files = ("--graph=model/retrained_graph.pb", "--labels=model/retrained_labels.txt", f"--image={first_image(work)}")
  assert main(["label_image", *files, "--input_layer=Placeholder", "--output_layer=final_result"]) == 2
  assert "retrained_graph.pb has changed since it was written" in capsys.readouterr().err


def test_a_damaged_entry_of_the_cache_answers_nothing(monkeypatch, tmp_path):
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path))
  cache.write_source("a", {"agreement": {"images": 64, "least_cosine": 0.27}})
  assert cache.read_source("a") == {"agreement": {"images": 64, "least_cosine": 0.27}}
  path = tmp_path / "sources/a.json"
  for text in (path.read_text().replace("0.27", "0.97"), "[]", "5", "{}", "", path.read_text()[:20]):
    path.write_text(text)
    assert cache.read_source("a") is None
