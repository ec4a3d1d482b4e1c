"""Which kind of its trunk a run takes: asked for, checked on the user's images, kept of an earlier run."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.pipelines import bottlenecks
from beam_retrain.pipelines.models import precision
from beam_retrain.pipelines.models.precision import choose_variant
from beam_retrain.pipelines.models.trunk_sources import load_trunk, prepare
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models import agreement
from beam_retrain.transforms.core.models.agreement import BOUNDS, Agreement
from beam_retrain.transforms.core.models.inference import Inferred
from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.runtimes import variant
from beam_retrain.transforms.core.runtimes.prepared import load_prepared
from beam_retrain.transforms.core.runtimes.variant import Variant, digest_of_sample, has_bfloat16, has_openvino
from tests.helpers import ROOT, noise_image, python

needs_openvino = pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed: beam-retrain[fast]")
needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")
BFLOAT16 = Variant("tensorflow", "bfloat16")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A SavedModel of two convolutions, 16 px, 24 numbers."""
  rng = np.random.default_rng(5)
  first, second = (
    tf.constant(rng.normal(0, 0.3, shape).astype(np.float32)) for shape in ((3, 3, 3, 16), (3, 3, 16, 24))
  )

  def embed(images):
    inner = tf.nn.relu(tf.nn.conv2d(images, first, 1, "SAME"))
    return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(inner, second, 2, "SAME")), [1, 2])

  folder = tmp_path_factory.mktemp("trunk") / "small"
  save_trunk(freeze(embed, 16), str(folder))
  return folder


@pytest.fixture(scope="module")
def trunk(saved):
  return load_trunk(str(saved))


def picture(number: int, width: int = 20) -> Image:
  return Image(f"{number}.png", "a", noise_image(number, size=(12, width)))


def pictures(count: int) -> list[Image]:
  return [picture(number) for number in range(min(count, 20))]


@pytest.fixture
def machine(monkeypatch):
  """Makes this machine one with, or without, what some kinds need."""

  def make(*, bfloat16: bool, openvino: bool, is_slow: bool = False) -> None:
    monkeypatch.setattr(variant, "has_bfloat16", lambda: bfloat16)
    monkeypatch.setattr(variant, "has_openvino", lambda: openvino)
    monkeypatch.setattr(variant, "openvino_fault", lambda: "")
    monkeypatch.setattr(precision, "has_openvino", lambda: openvino)
    monkeypatch.setattr(precision, "is_bfloat16_faster", lambda: bfloat16 and not is_slow)

  return make


@needs_bfloat16
def test_auto_takes_bfloat16_where_a_check_allows_it(trunk, machine):
  machine(bfloat16=True, openvino=False)
  choice = choose_variant(trunk, "auto", "auto", pictures)
  assert choice.trunk.info.variant == BFLOAT16
  assert choice.trunk.info.fingerprint == BFLOAT16.fingerprint(trunk.info.fingerprint) != trunk.info.fingerprint
  assert choice.check.images == 20
  assert 0.999 < choice.check.least_cosine < 1
  assert choice.describe() == (
    "the trunk runs in bfloat16 by TensorFlow; on a sample of 20 images the smallest cosine with float32 is"
    f" {choice.check.least_cosine:.6f}"
  )
  assert choice.to_info() == {
    "runtime": "tensorflow",
    "precision": "bfloat16",
    "sample": {"images": 20, "least_cosine": choice.check.least_cosine},
    "bound": BOUNDS["bfloat16"]._asdict(),
  }


@needs_bfloat16
def test_auto_stays_with_float32_where_the_check_fails_and_says_why(trunk, machine, monkeypatch):
  machine(bfloat16=True, openvino=False)
  monkeypatch.setattr(precision, "LEAST_COSINE", 1.0)
  choice = choose_variant(trunk, "auto", "auto", pictures)
  assert choice.trunk.info.variant == Variant()
  assert choice.trunk.info.fingerprint == trunk.info.fingerprint
  assert choice.why.startswith("not in bfloat16, as on a sample of 20 images the smallest cosine with float32 is 0.99")
  assert choice.to_info()["why"] == choice.why
  # Who asks for it gets it, and is told the same.
  assert choose_variant(trunk, "bfloat16", "auto", pictures).trunk.info.variant == BFLOAT16


@needs_bfloat16
def test_auto_stays_with_float32_where_bfloat16_takes_longer(trunk, machine):
  machine(bfloat16=True, openvino=False, is_slow=True)
  choice = choose_variant(trunk, "auto", "auto", pictures)
  assert choice.describe() == (
    "the trunk runs in float32 by TensorFlow; not in bfloat16, which takes longer on this processor"
  )
  assert choose_variant(trunk, "bfloat16", "auto", pictures).trunk.info.variant == BFLOAT16


@needs_bfloat16
@pytest.mark.parametrize("images", [[], [Image("bad.png", "a", b"no image")]])
def test_without_an_image_there_is_no_check_and_no_bfloat16(trunk, machine, images):
  machine(bfloat16=True, openvino=False)
  choice = choose_variant(trunk, "auto", "auto", lambda count: images)
  assert choice.trunk.info.variant == Variant()
  assert choice.why == "not in bfloat16, as no image can be decoded to check it with"


def test_a_plain_machine_takes_float32_by_tensorflow(trunk, machine):
  machine(bfloat16=False, openvino=False)
  choice = choose_variant(trunk, "auto", "auto", pictures)
  assert choice.trunk.info.variant == Variant()
  assert choice.describe() == (
    "the trunk runs in float32 by TensorFlow; this processor has no bfloat16 (neither avx512_bf16 nor amx_bf16)"
  )
  for asked, words in (
    (("bfloat16", "auto"), "--precision bfloat16: this processor has no bfloat16 .*: use --precision float32"),
    (("int8", "auto"), "--precision int8 needs OpenVINO: OpenVINO is not installed: .*pip install"),
    (("int8", "tensorflow"), "--precision int8: TensorFlow cannot run trunks in int8"),
    (("auto", "openvino"), "OpenVINO is not installed: .*pip install"),
  ):
    with pytest.raises(InputError, match=words):
      choose_variant(trunk, *asked, pictures)


@needs_bfloat16
def test_images_that_the_job_takes_for_too_large_are_not_checked_with(saved, tmp_path):
  for place in ("training/a", "training/b", "testing/a", "testing/b"):
    (tmp_path / "pictures" / place).mkdir(parents=True)
    for width in (19, 20, 30):
      path = tmp_path / "pictures" / place / f"{width}.png"
      path.write_bytes(picture(len(list(tmp_path.rglob("*.png"))), width).encoded)
  flags = [f"--input={tmp_path / 'pictures'}", f"--trunk={saved}", "--validation_percentage=0", "--max_bad_fraction=1"]
  asked = ["--runtime=tensorflow", "--precision=bfloat16"]

  def checked(output: str, *more: str) -> int:
    assert bottlenecks.run([*flags, *asked, f"--output={tmp_path / output}", *more]) == 0
    return json.loads((tmp_path / output / "info.json").read_text())["execution"]["sample"]["images"]

  assert checked("all") == 6
  assert checked("small", f"--max_pixels={12 * 20}") == 4
  assert len((tmp_path / "small" / "quarantine.csv").read_text().splitlines()) == 1 + 4


@needs_openvino
@needs_bfloat16
def test_openvino_is_taken_where_it_is_installed(trunk, machine):
  machine(bfloat16=True, openvino=True)
  choice = choose_variant(trunk, "auto", "auto", pictures)
  assert choice.trunk.info.variant == Variant("openvino", "bfloat16")
  assert choice.check.least_cosine > 0.999
  assert choose_variant(trunk, "float32", "auto", pictures).trunk.info.variant == Variant("openvino", "float32")
  assert choose_variant(trunk, "float32", "tensorflow", pictures).trunk.info.variant == Variant()


def test_auto_takes_tensorflow_for_a_trunk_that_openvino_cannot_run(trunk, machine, monkeypatch):
  machine(bfloat16=False, openvino=True)

  def prepare(trunk, kind, sample=None):
    if kind.runtime == "openvino":
      raise InputError("OpenVINO cannot run this trunk (no such operation): use --runtime tensorflow.")
    return prepare_really(trunk, kind, sample)

  prepare_really = precision.prepare
  monkeypatch.setattr(precision, "prepare", prepare)
  choice = choose_variant(trunk, "auto", "auto", pictures)
  assert choice.trunk.info.variant == Variant()
  assert choice.why.startswith("OpenVINO cannot run this one; this processor has no bfloat16")
  with pytest.raises(InputError, match="no such operation"):
    choose_variant(trunk, "auto", "openvino", pictures)


def test_remains_of_an_openvino_that_was_removed_are_none(tmp_path):
  (tmp_path / "openvino").mkdir()
  (tmp_path / "openvino" / "__init__.py").write_text("")
  code = "from beam_retrain.transforms.core.system.imports import openvino_fault; print(openvino_fault())"
  done = python("-c", code, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
  assert done.stdout == "module 'openvino' has no attribute 'Core'\n"


def test_an_openvino_that_cannot_be_imported_is_gone_without_in_words(saved, tmp_path):
  broken, fault = "raise ImportError('libopenvino.so.1: cannot open\\nand more')", "libopenvino.so.1: cannot open"
  for package, text in (("openvino", broken), ("nncf", "raise OSError")):
    (tmp_path / "broken" / package).mkdir(parents=True)
    (tmp_path / "broken" / package / "__init__.py").write_text(text)
  for number, place in enumerate(("training/a", "training/b", "testing/a", "testing/b")):
    (tmp_path / "pictures" / place).mkdir(parents=True)
    (tmp_path / "pictures" / place / "1.png").write_bytes(picture(number).encoded)
  script = (
    "import sys\n"
    "sys.path.insert(0, sys.argv.pop(1))\n"
    "from beam_retrain.pipelines import bottlenecks\n"
    "from beam_retrain.pipelines.jobs.runner import run_command\n"
    "for asked in ('auto', 'openvino'):\n"
    "  print(asked, run_command(bottlenecks.run, [*sys.argv[1:], f'--runtime={asked}']))\n"
    "from beam_retrain.transforms.core.system.imports import nncf_fault\n"
    "print('nncf:', nncf_fault())"
  )
  flags = [
    f"--input={tmp_path / 'pictures'}",
    f"--trunk={saved}",
    f"--output={tmp_path / 'out'}",
    "--validation_percentage=0",
    "-v",
  ]
  command = [sys.executable, "-c", script, str(tmp_path / "broken"), *flags]
  done = subprocess.run(command, capture_output=True, text=True, timeout=300)
  told = f"OpenVINO is installed but cannot be imported ({fault}): pip install --force-reinstall openvino"
  lines = done.stdout.splitlines()
  assert lines[0].startswith(("the trunk runs in bfloat16 by TensorFlow", "the trunk runs in float32 by TensorFlow"))
  assert f"; {told}; " in lines[0]
  assert lines[-3:] == ["auto 0", "openvino 2", "nncf: OSError"]
  assert done.stderr.splitlines()[-1].endswith(f" cannot be prepared for float32 by OpenVINO: {told}.")


@needs_openvino
@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="NNCF is not installed: beam-retrain[fast]")
def test_int8_is_calibrated_on_a_sample_which_is_part_of_its_kind(trunk, machine, tmp_path, monkeypatch):
  machine(bfloat16=has_bfloat16(), openvino=True)
  choice = choose_variant(trunk, "int8", "auto", pictures)
  kind = choice.trunk.info.variant
  assert kind == Variant("openvino", "int8", digest_of_sample([image.sha256 for image in pictures(99)]))
  assert choice.check.images == 20
  assert 0.9 < choice.check.least_cosine < 1
  # What cannot be decoded calibrates nothing, and makes no other kind.
  more = choose_variant(trunk, "int8", "auto", lambda count: [*pictures(count), Image("x", "a", b"")])
  assert more.trunk.info.variant == kind
  others = choose_variant(trunk, "int8", "auto", lambda count: pictures(count)[:10])
  assert others.trunk.info.fingerprint != choice.trunk.info.fingerprint
  # Images that have come since do not make the bottlenecks useless that are there.
  choice.trunk.save(store(tmp_path / "there", trunk, kind) + "/trunk")
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path / "another_cache"))
  kept = choose_variant(trunk, "int8", "auto", lambda count: pictures(count)[:10], [str(tmp_path / "there")])
  assert kept.trunk.info.fingerprint == choice.trunk.info.fingerprint
  shutil.rmtree(tmp_path / "there")  # as a run with other settings replaces it
  assert load_prepared(kept.trunk.prepared_folder).variant == kind
  with pytest.raises(InputError, match="no training image can be decoded"):
    choose_variant(trunk, "int8", "auto", lambda count: [])


@needs_openvino
@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="NNCF is not installed: beam-retrain[fast]")
def test_what_was_calibrated_before_needs_nncf_no_more(trunk, machine, monkeypatch):
  machine(bfloat16=has_bfloat16(), openvino=True)
  first = choose_variant(trunk, "int8", "auto", pictures)
  monkeypatch.setattr(precision, "nncf_fault", lambda: "it was imported again")
  assert choose_variant(trunk, "int8", "auto", pictures) == first
  with pytest.raises(InputError, match="it was imported again"):
    choose_variant(trunk, "int8", "auto", lambda count: pictures(count)[:9])


@needs_openvino
@needs_bfloat16
def test_bfloat16_by_openvino_is_float32_with_another_card(trunk):
  folders = [Path(prepare(trunk, Variant("openvino", kind)).prepared_folder) for kind in ("bfloat16", "float32")]
  for name in ("model.bin", "model.xml"):
    assert len({(folder / name).stat().st_ino for folder in folders}) == 1
  assert [load_prepared(str(folder)).variant.precision for folder in folders] == ["bfloat16", "float32"]


@needs_bfloat16
def test_the_same_images_are_not_looked_at_twice(trunk, machine, monkeypatch):
  machine(bfloat16=True, openvino=False)
  first = choose_variant(trunk, "auto", "auto", pictures)
  monkeypatch.setattr(agreement, "infer_good", lambda *_: pytest.fail("the trunk was run again"))
  assert choose_variant(trunk, "auto", "auto", pictures) == first
  with pytest.raises(pytest.fail.Exception):
    choose_variant(trunk, "auto", "auto", lambda count: [*pictures(count), picture(99)])


def test_an_image_that_gets_no_finite_numbers_counts_as_far_off(trunk, monkeypatch):
  one, other = (Inferred(Image(key, "a", b""), {"bottleneck": np.ones(4, np.float32)}) for key in "ab")
  inferred = iter([[one, other], [one]])  # float32 first
  monkeypatch.setattr(agreement, "infer_good", lambda *_: next(inferred))
  monkeypatch.setattr(precision, "load_prepared_model", lambda folder: None)
  prepared = prepare(trunk, Variant())
  assert precision.check_variant(prepared, prepared, [picture(1234)]) == Agreement(2, -1.0)


def store(folder, trunk, kind: Variant) -> str:
  """What `bottlenecks` leaves of its trunk."""
  card = trunk.info.with_variant(kind).to_json()
  folder.mkdir()
  (folder / "info.json").write_text(json.dumps({"stage": "bottlenecks", "trunk": card}))
  return str(folder)


def test_of_the_kinds_that_would_do_that_of_earlier_bottlenecks_is_taken(trunk, machine, tmp_path):
  machine(bfloat16=True, openvino=False)
  plain, fast = store(tmp_path / "plain", trunk, Variant()), store(tmp_path / "fast", trunk, BFLOAT16)

  def kind(asked: str, *folders: str) -> Variant:
    return choose_variant(trunk, asked, "auto", pictures, folders).trunk.info.variant

  assert kind("auto", plain, fast) == kind("float32", fast, plain) == Variant()
  assert choose_variant(trunk, "auto", "auto", pictures, [plain]).why == f"as for the bottlenecks in {plain}"
  if has_bfloat16():
    assert kind("auto", fast, plain) == kind("bfloat16", plain) == BFLOAT16
  machine(bfloat16=False, openvino=False)
  assert kind("auto", fast) == Variant()  # it cannot be had here


def test_bottlenecks_of_an_earlier_version_are_of_the_plain_kind(trunk, machine, tmp_path):
  machine(bfloat16=True, openvino=True)
  (tmp_path / "old").mkdir()
  card = {name: trunk.info.to_json()[name] for name in ("handle", "fingerprint", "input_px", "dimensions")}
  (tmp_path / "old/info.json").write_text(json.dumps({"stage": "bottlenecks", "trunk": card}))
  assert choose_variant(trunk, "auto", "auto", pictures, [str(tmp_path / "old")]).trunk.info.variant == Variant()


def test_bottlenecks_of_another_trunk_decide_nothing(trunk, machine, tmp_path):
  machine(bfloat16=False, openvino=False)
  (tmp_path / "other").mkdir()
  card = {**trunk.info.to_json(), "fingerprint": "0" * 64, "base_fingerprint": "0" * 64}
  (tmp_path / "other/info.json").write_text(json.dumps({"stage": "bottlenecks", "trunk": card}))
  choice = choose_variant(trunk, "auto", "auto", pictures, [str(tmp_path / "other")])
  assert not choice.why.startswith("as for")
