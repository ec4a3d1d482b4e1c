"""In which kind a trained model's trunk is run: its own where it can be had, else as the exported model has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from beam_retrain.pipelines import bottlenecks, evaluate, predict
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.choose_variant import EXPORTED, ServingVariant, choose_serving_variant
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION
from beam_retrain.transforms.core.runtimes import variant
from beam_retrain.transforms.core.runtimes.variant import Variant
from beam_retrain.transforms.core.system.extras import install_command

FAST = Variant("openvino", "bfloat16")


@pytest.fixture
def machine(monkeypatch):
  """Makes this machine one with, or without, what some kinds need."""

  def make(*, has_all: bool) -> None:
    monkeypatch.setattr(variant, "has_bfloat16", lambda: has_all)
    monkeypatch.setattr(variant, "has_openvino", lambda: has_all)
    monkeypatch.setattr(variant, "openvino_fault", lambda: "")

  return make


def choose(kind: Variant, *asked: str, has_prepared: bool = True, preprocessing: str = PREPROCESSING_VERSION):
  return choose_serving_variant("M", kind, preprocessing, has_prepared, *asked)


def test_a_model_s_own_kind_is_run_where_it_can_be(machine):
  machine(has_all=True)
  assert choose(FAST) == choose(FAST, "bfloat16") == choose(FAST, "auto", "openvino") == ServingVariant(FAST, True)
  assert choose(EXPORTED) == choose(EXPORTED, "float32", "tensorflow") == ServingVariant(EXPORTED, True)
  # Asked for, the exported model's is no surprise that would have to be explained.
  assert choose(FAST, "float32") == choose(FAST, "auto", "tensorflow") == ServingVariant(EXPORTED, False)


def test_where_it_cannot_be_had_the_exported_model_is_run_and_it_is_said_why(machine):
  machine(has_all=False)
  run = choose(FAST)
  assert (run.variant, run.is_prepared) == (EXPORTED, False)
  assert str(run) == (
    "the trunk runs in float32 by TensorFlow, not in bfloat16 by OpenVINO as the model's bottlenecks: OpenVINO is"
    f" not installed: {install_command('fast')}"
  )
  machine(has_all=True)
  assert choose(FAST, has_prepared=False).why.endswith("the model's folder has no trunk/prepared")
  assert choose(FAST, preprocessing="another").why.endswith("preprocessing has changed since")
  assert choose(EXPORTED, has_prepared=False) == ServingVariant(EXPORTED, False)  # of an earlier version: as it was


def test_what_is_neither_is_refused(machine):
  machine(has_all=True)
  words = "trained on bottlenecks in bfloat16 by OpenVINO, and its exported trunk is in float32 by TensorFlow: "
  with pytest.raises(InputError, match=f"{words}--precision int8 is neither"):
    choose(FAST, "int8")
  with pytest.raises(InputError, match=f"{words}--precision bfloat16 --runtime tensorflow is neither"):
    choose(FAST, "bfloat16", "tensorflow")
  machine(has_all=False)
  with pytest.raises(InputError, match="the model in M cannot run in bfloat16 by OpenVINO here: OpenVINO is not"):
    choose(FAST, "bfloat16")


def info_of(folder: Path) -> dict:
  return json.loads((folder / "info.json").read_text())


def test_a_model_has_the_trunk_that_made_its_bottlenecks(made):
  trunk, execution = info_of(made.bottlenecks)["trunk"], info_of(made.bottlenecks)["execution"]
  assert (trunk["runtime"], trunk["precision"]) == (execution["runtime"], execution["precision"])
  for name in ("card.json", "model.bin" if trunk["runtime"] == "openvino" else "graph.pb"):
    copies = [folder / "trunk/prepared" / name for folder in (made.bottlenecks, made.model)]
    assert copies[0].read_bytes() == copies[1].read_bytes()
  card = json.loads((made.model / "trunk/prepared/card.json").read_text())
  assert card["fingerprint"] == trunk["fingerprint"] == info_of(made.model)["trunk"]["fingerprint"]


def test_an_evaluation_says_how_near_to_float32_it_is(made, tmp_path, capsys):
  flags = [f"--model={made.model}", f"--input={made.data}"]
  kind = info_of(made.model)["trunk"]
  assert evaluate.run([*flags, "-v", f"--output={tmp_path / 'own'}"]) == 0
  out = capsys.readouterr().out
  found = json.loads((tmp_path / "own/metrics.json").read_text())["trunk_kind"]
  assert (found["runtime"], found["precision"]) == (kind["runtime"], kind["precision"])
  if kind["precision"] != "float32":
    assert found["sample"]["images"] == 64
    assert found["sample"]["least_cosine"] > 0.999
    assert found["sample"]["same_answers"] > 60
    assert f"and {found['sample']['same_answers']} predictions are the same" in out
  assert info_of(tmp_path / "own")["trunk"] == info_of(made.model)["trunk"]


def test_on_a_lesser_machine_the_exported_model_answers(made, tmp_path, machine, capsys):
  machine(has_all=False)
  flags = [f"--model={made.model}", f"--input={made.data}", f"--output={tmp_path / 'exported'}"]
  kind = info_of(made.model)["trunk"]
  if kind["runtime"] == "tensorflow":
    pytest.skip("the model's own kind needs nothing that a machine may lack")
  assert evaluate.run(flags) == 0
  metrics = json.loads((tmp_path / "exported/metrics.json").read_text())
  assert metrics["accuracy"] > 0.85
  assert metrics["trunk_kind"]["precision"] == "float32"
  assert metrics["trunk_kind"]["why"].startswith("not in ")
  trunk = info_of(tmp_path / "exported")["trunk"]
  assert trunk["fingerprint"] == trunk["base_fingerprint"] == kind["base_fingerprint"]
  capsys.readouterr()
  # One image, by the exported model too; what is said of it stays out of the answer.
  assert predict.run([f"--model={made.model}", str(next((made.data / "ant").iterdir()))]) == 0
  said = capsys.readouterr()
  assert len(said.out.splitlines()) == 1
  assert "the trunk runs in float32 by TensorFlow, not in " in said.err


def test_stored_bottlenecks_have_their_kind(made, tmp_path):
  flags = [f"--model={made.model}", f"--input={made.bottlenecks}", f"--output={tmp_path / 'out'}"]
  with pytest.raises(InputError, match="--precision applies to images, but --input holds bottlenecks"):
    evaluate.run([*flags, "--precision=float32"])


def test_kinds_do_not_mix_and_auto_takes_the_one_that_is_there(made, tmp_path, capsys):
  trunk = info_of(made.bottlenecks)["trunk"]
  images = tmp_path / "pictures"
  for label in ("ant", "bee"):
    (images / label).mkdir(parents=True)
    for path in sorted((made.data / label).iterdir())[:30]:
      shutil.copy(path, images / label)
  flags = [f"--input={images}", f"--trunk={made.model.parent / 'trunk'}", f"--reuse={made.bottlenecks}"]
  if (trunk["runtime"], trunk["precision"]) != ("tensorflow", "float32"):
    asked = ["--precision=float32", "--runtime=tensorflow"]
    with pytest.raises(InputError, match=rf"of another trunk \(.* in {trunk['precision']} by .*\) than the current"):
      bottlenecks.run([*flags, *asked, f"--output={tmp_path / 'mixed'}"])
    assert not (tmp_path / "mixed").exists()
  assert bottlenecks.run([*flags, "-v", f"--output={tmp_path / 'more'}"]) == 0
  out = capsys.readouterr().out
  assert f"; as for the bottlenecks in {made.bottlenecks}" in out
  assert "60 of 60 bottlenecks reused" in out
  assert info_of(tmp_path / "more")["trunk"] == trunk
