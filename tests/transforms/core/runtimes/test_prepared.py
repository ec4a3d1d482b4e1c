"""A prepared trunk gives the numbers of the SavedModel that it was made from, for any batch and number of threads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.pipelines.models.trunk_sources import Trunk, load_stored_trunk, load_trunk, prepare
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import load_model, load_prepared_model
from beam_retrain.transforms.core.models.saved_model import load_saved_model
from beam_retrain.transforms.core.runtimes.prepared import CARD_FILE, find_prepared, load_prepared
from beam_retrain.transforms.core.runtimes.trunk_info import PreparedInfo, TrunkInfo, default_batch
from beam_retrain.transforms.core.runtimes.variant import (
  BFLOAT16,
  FLOAT32,
  INT8,
  OPENVINO,
  TENSORFLOW,
  Variant,
  digest_of_sample,
)

_IMAGES = np.random.default_rng(5).random((5, 75, 75, 3), np.float32)
_KINDS = [
  Variant(TENSORFLOW, FLOAT32),
  Variant(TENSORFLOW, BFLOAT16),
  Variant(OPENVINO, FLOAT32),
  Variant(OPENVINO, BFLOAT16),
  Variant(OPENVINO, INT8, digest_of_sample(["sample"])),
]
_LEAST_COSINE = {FLOAT32: 1 - 1e-6, BFLOAT16: 0.999, INT8: 0.9}


@pytest.fixture(scope="module", params=_KINDS, ids=str)
def prepared(request) -> Trunk:
  kind = request.param
  if why := kind.unsupported_reason():
    pytest.skip(why)
  return prepare(load_trunk("bundled"), kind, lambda: _IMAGES)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  return np.sum(one * other, axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_the_numbers_are_those_of_the_saved_model(prepared, tmp_path):
  prepared.save(str(tmp_path / "trunk"))
  expected = load_saved_model(str(tmp_path / "trunk")).embed(tf.constant(_IMAGES)).numpy()
  model = load_model(str(tmp_path / "trunk"), batch_size=4)
  given = model.infer(tf.constant(_IMAGES))["bottleneck"]
  assert given.dtype == np.float32
  assert given.shape == (5, prepared.info.dimensions)
  assert cosines(given, expected).min() > _LEAST_COSINE[prepared.info.variant.precision]
  if prepared.info.variant.precision == FLOAT32:
    np.testing.assert_allclose(given, expected, atol=1e-4)
  else:
    assert not np.allclose(given, expected, atol=1e-4), "nothing was cast"


def test_a_model_knows_the_batch_it_is_made_for(prepared):
  default = default_batch(prepared.info.variant.runtime, prepared.info.input_px)
  assert load_prepared_model(prepared.prepared_folder).batch_size == default
  assert load_prepared_model(prepared.prepared_folder, batch_size=3).batch_size == 3


@pytest.mark.parametrize(
  ("runtime", "input_px", "batch_size"),
  [(OPENVINO, 75, 32), (OPENVINO, 224, 8), (OPENVINO, 299, 4), (OPENVINO, 1024, 4), (TENSORFLOW, 299, 32)],
)
def test_few_large_images_are_a_batch_for_openvino(runtime, input_px, batch_size):
  assert default_batch(runtime, input_px) == batch_size


def test_the_same_bits_for_any_batch_and_number_of_threads(prepared):
  alone = np.concatenate(
    [load_prepared(prepared.prepared_folder, 1, 1).embed(_IMAGES[row : row + 1]) for row in range(len(_IMAGES))]
  )
  together = load_prepared(prepared.prepared_folder, 2, 4).embed
  np.testing.assert_array_equal(together(_IMAGES), alone)
  np.testing.assert_array_equal(together(_IMAGES[::-1]), alone[::-1])


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")])
def test_tensorflow_computes_with_onednn_unless_the_user_says_otherwise(given, expected):
  """On processors without AVX-512 its default is another one, whose bits depend on the batch: seen on an EPYC."""
  environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"} | given
  code = """
import os
from beam_retrain.pipelines import worker
from beam_retrain.transforms.core.system.imports import load_tensorflow
load_tensorflow()
from tensorflow.python.util import _pywrap_util_port
print(os.environ["TF_ENABLE_ONEDNN_OPTS"], int(_pywrap_util_port.IsMklEnabled()))
"""
  done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
  assert done.stdout.split() == [expected, expected]


def test_a_kind_has_its_fingerprint_and_card(prepared):
  assert prepared.info.base_fingerprint == load_trunk("bundled").info.fingerprint
  assert (prepared.info.fingerprint == prepared.info.base_fingerprint) == (prepared.info.variant == Variant())
  card = json.loads((Path(prepared.prepared_folder) / CARD_FILE).read_text())
  assert {**prepared.info.variant.to_json(), "fingerprint": prepared.info.fingerprint}.items() <= card.items()


def test_a_stored_trunk_is_of_its_kind_wherever_it_is_copied(prepared, tmp_path):
  prepared.save(str(tmp_path / "first"))
  stored = load_stored_trunk(str(tmp_path / "first"), prepared.info)
  assert (stored.info.variant, stored.info.fingerprint) == (prepared.info.variant, prepared.info.fingerprint)
  stored.save(str(tmp_path / "second"))
  assert load_prepared(find_prepared(str(tmp_path / "second"))).variant == prepared.info.variant


def test_a_trunk_from_before_there_were_kinds(tmp_path):
  trunk = load_trunk("bundled")
  trunk.save(str(tmp_path / "old"))
  card = {name: trunk.info.to_json()[name] for name in ("handle", "fingerprint", "input_px", "dimensions")}
  (tmp_path / "old" / "trunk.json").write_text(json.dumps(card))
  stored = load_stored_trunk(str(tmp_path / "old"), TrunkInfo.from_json(card))
  assert (stored.info, stored.prepared_folder) == (trunk.info, "")
  stored = prepare(stored, Variant())
  stored.save(str(tmp_path / "new"))
  assert load_stored_trunk(str(tmp_path / "new"), stored.info).info.fingerprint == trunk.info.fingerprint
  old, new = (load_model(str(tmp_path / name)).infer(tf.constant(_IMAGES))["bottleneck"] for name in ("old", "new"))
  np.testing.assert_allclose(old, new, atol=1e-4)


def test_a_damaged_trunk_is_told(prepared, tmp_path):
  folder = tmp_path / "prepared"
  shutil.copytree(prepared.prepared_folder, folder)
  name = next(iter(json.loads((folder / CARD_FILE).read_text())["files"]))
  with open(folder / name, "r+b") as file:
    file.write(b"\0\0\0")
  with pytest.raises(InputError, match=rf"{name} is damaged or missing: run `beam-retrain bottlenecks` again, or"):
    load_prepared(str(folder))


@pytest.mark.parametrize("prepared", [_KINDS[1], _KINDS[2], _KINDS[4]], ids=str, indirect=True)
def test_a_damaged_one_that_is_stored_is_not_copied_into_the_cache(prepared, tmp_path, monkeypatch):
  prepared.save(str(tmp_path / "there"))
  stored = find_prepared(str(tmp_path / "there"))
  name = next(iter(json.loads((Path(stored) / CARD_FILE).read_text())["files"]))
  damaged = Path(stored, name)
  content = damaged.read_bytes()
  damaged.unlink()  # which the cache and other outputs share
  damaged.write_bytes(b"\0\0\0" + content[3:])
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path / "cache"))
  again = load_stored_trunk(str(tmp_path / "there"), prepared.info)
  if prepared.info.variant.precision == INT8:  # nothing to calibrate it with
    with pytest.raises(InputError, match=r"is damaged or missing, .* run `beam-retrain bottlenecks` again"):
      prepare(again, prepared.info.variant, stored=stored)
    return
  for folder in ("", stored):
    made = prepare(again, prepared.info.variant, stored=folder)
    assert load_prepared(made.prepared_folder).dimensions == prepared.info.dimensions
    shutil.rmtree(tmp_path / "cache")


@pytest.mark.parametrize("kind", _KINDS[1:3], ids=str)
def test_a_machine_that_cannot_run_it_says_what_to_do(kind, monkeypatch, tmp_path):
  (tmp_path / CARD_FILE).write_text(
    PreparedInfo(kind, "0" * 64, 75, 512, {"tensorflow": "2"}, {"graph.pb": ""}).encode()
  )
  monkeypatch.setattr("beam_retrain.transforms.core.runtimes.variant.has_bfloat16", lambda: False)
  monkeypatch.setattr("beam_retrain.transforms.core.runtimes.variant.has_openvino", lambda: False)
  with pytest.raises(InputError, match=r"was prepared for .* not for .*(--precision float32|pip install)"):
    load_prepared(str(tmp_path))


def test_what_openvino_cannot_run_is_told(tmp_path):
  pytest.importorskip("openvino")

  def embed(images):
    return tf.reshape(tf.strings.to_number(tf.strings.as_string(images)), [-1, 12])

  from beam_retrain.transforms.core.models.saved_model import freeze

  trunk = Trunk(TrunkInfo("strings", "0" * 64, 2, 12, "0" * 64), freeze(embed, 2))
  with pytest.raises(InputError, match=r"OpenVINO cannot run this trunk .*--runtime tensorflow"):
    prepare(trunk, Variant(OPENVINO, FLOAT32))


def test_a_preparation_reports_home_to_nobody(tmp_path):
  pytest.importorskip("openvino")
  pytest.importorskip("nncf")
  script = (
    "import os, sys\n"
    f"os.environ['BEAM_RETRAIN_CACHE_DIR'] = {str(tmp_path)!r}\n"
    "import numpy as np\n"
    "from beam_retrain.pipelines.models.trunk_sources import load_trunk, prepare\n"
    "from beam_retrain.transforms.core.runtimes.variant import Variant\n"
    "sample = np.random.default_rng(3).random((8, 75, 75, 3), np.float32)\n"
    "prepare(load_trunk('bundled'), Variant('openvino', 'int8', 'x'), lambda: sample)\n"
    "assert 'nncf' in sys.modules\n"
    "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
  )
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"  # and no progress bars


def test_the_first_calls_of_several_threads_do_not_wait_for_one_another():
  pytest.importorskip("openvino")
  prepared = prepare(load_trunk("bundled"), Variant(OPENVINO, FLOAT32))
  script = (
    "import sys, threading\n"
    "import numpy as np\n"
    "from beam_retrain.transforms.core.runtimes.prepared import load_prepared\n"
    "embed = load_prepared(sys.argv[1], 1, 1).embed\n"
    "assert embed(np.zeros((0, 75, 75, 3), np.float32)).shape == (0, 512)  # which is no first call yet\n"
    "together, given = threading.Barrier(4), []\n"
    "def call():\n"
    "  together.wait()\n"
    "  given.append(embed(np.zeros((1, 75, 75, 3), np.float32)).shape)\n"
    "threads = [threading.Thread(target=call) for _ in range(4)]\n"
    "for thread in threads: thread.start()\n"
    "for thread in threads: thread.join()\n"
    "print(given)"
  )
  for _ in range(3):  # whether they would is a matter of chance
    command = [sys.executable, "-c", script, prepared.prepared_folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == str(4 * [(1, 512)])


def test_a_signal_can_be_handled_after_trunks_have_come_and_gone():
  pytest.importorskip("openvino")
  trunk = prepare(load_trunk("bundled"), Variant(OPENVINO, FLOAT32))
  script = (
    "import signal, sys\n"
    "from beam_retrain.transforms.core.runtimes.prepared import load_prepared\n"
    "signal.signal(signal.SIGTERM, lambda *_: print('handled'))\n"
    "first, second = (load_prepared(sys.argv[1], 1, 1) for _ in range(2))\n"
    "del first\n"
    "del second\n"
    "signal.raise_signal(signal.SIGTERM)\n"
  )
  command = [sys.executable, "-c", script, trunk.prepared_folder]
  done = subprocess.run(command, capture_output=True, text=True)
  assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
