"""Where the tests find real data: the only file that knows of the folder that developers share."""

from __future__ import annotations

import gc
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import pytest

import beam_retrain.transforms.core  # noqa: F401  # before TensorFlow, which reads what it sets
from tests.helpers import ROOT

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Where that is set, each of the hundreds of processes that tests start would compile the checkout's modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# The collector takes a tenth of the suite's time, nearly all of it over what Beam and TensorFlow made while they were
# imported, and that stays.
gc.disable()
# The assertions of the modules beside the test files say what differs, too.
pytest.register_assert_rewrite(
  *(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "tests").rglob("*_suite.py"))
)

_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not _IS_WORKER:
  # Of this session alone, and of all its processes, which inherit it: what one test has prepared, the others find.
  os.environ["BEAM_RETRAIN_CACHE_DIR"] = tempfile.mkdtemp(prefix="beam-retrain-tests-")


_LONGEST = ("tests/system/", "tests/pipelines/", "tests/trainer/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Puts long tests first: two processes that share the files then end at about the same time."""
  items.sort(
    key=lambda item: next((n for n, room in enumerate(_LONGEST) if item.nodeid.startswith(room)), len(_LONGEST))
  )


def pytest_collection_finish() -> None:
  gc.freeze()
  gc.enable()
  gc.set_threshold(20_000, 20, 20)


def pytest_unconfigure() -> None:
  if not _IS_WORKER:
    shutil.rmtree(os.environ["BEAM_RETRAIN_CACHE_DIR"], ignore_errors=True)


# The kind of trunk that the exported model has: for bytes that are to be the same whichever way they came.
EXACT = ("--precision=float32", "--runtime=tensorflow")

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def _shared(name: str) -> Path:
  folder = Path(os.environ.get("BEAM_RETRAIN_TEST_DATA", _SHARED_DATA)) / name
  if not folder.is_dir():
    pytest.skip(f"{folder} is not there: set BEAM_RETRAIN_TEST_DATA to a folder that holds {name}/")
  return folder


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
  """Makes a folder of this name unless another process of the session has; returns it."""
  root = tmp_path_factory.getbasetemp()
  if _IS_WORKER:
    root = root.parent

  def get(name: str, make: Callable[[Path], object]) -> Path:
    folder, is_made = root / f"session-{name}", root / f"session-{name}.made"
    with filelock.FileLock(root / f"session-{name}.lock"):
      if not is_made.exists():
        folder.mkdir()
        make(folder)
        is_made.touch()
    return folder

  return get


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
  """The four MNIST files, gzip-compressed, as published."""
  return _shared("mnist")


@pytest.fixture(scope="session")
def inception_weights() -> Path:
  """Keras weights of a full-size, really trained Inception v3 without its top."""
  return _shared("inception_v3") / "inception_v3_notop.h5"


@pytest.fixture(scope="session")
def tiny_trunk(make_once: Callable) -> Path:
  """A trunk's SavedModel folder: a block as Inception has it, 75 px, 96 numbers, seeded random weights.

  By a multiple of eight TensorFlow's mean over the pixels has the same bits in every place of a batch.
  """

  def make(folder: Path) -> None:
    import keras

    from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk

    layers = keras.layers

    def convolve(x: Any, filters: int, size: int, strides: int = 1) -> Any:
      x = layers.Conv2D(filters, size, strides, "same", use_bias=False)(x)
      return layers.Activation("relu")(layers.BatchNormalization(scale=False)(x))

    keras.utils.set_random_seed(9)  # no image gives a vector of zeros, which no two precisions agree on
    images = keras.Input((75, 75, 3))
    x = layers.MaxPooling2D(3, 2)(convolve(layers.Rescaling(2.0, -1.0)(images), 8, 3, 2))
    ends = [convolve(x, 32, 1), convolve(x, 32, 3), convolve(layers.AveragePooling2D(3, 1, "same")(x), 32, 1)]
    model = keras.Model(images, layers.GlobalAveragePooling2D()(layers.Concatenate()(ends)))
    save_trunk(freeze(lambda images: model(images, training=False), 75), str(folder / "tiny"))

  return make_once("trunk", make) / "tiny"


@pytest.fixture
def collect(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], list]:
  """Runs `root | transform` on the default runner and returns the elements, in no order.

  By way of a file: a list that a lambda closes over is pickled, and the worker fills a copy.
  """

  def run(transform: Any) -> list:
    import apache_beam as beam

    from beam_retrain.pipelines.jobs.thread_runner import ThreadRunner

    path = tmp_path_factory.mktemp("collected") / "elements.pickle"
    with beam.Pipeline(ThreadRunner()) as root:
      _ = root | transform | beam.combiners.ToList() | beam.Map(lambda found: path.write_bytes(pickle.dumps(found)))
    return pickle.loads(path.read_bytes())

  return run


@pytest.fixture(scope="session")
def small_images(make_once: Callable) -> Path:
  """Class folders `black`, `grey` and `white` of 40 noisy images each, seeded, as JPEG, PNG, BMP and GIF in turn."""

  def make(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(11)
    for label, brightness in (("black", 0), ("grey", 95), ("white", 190)):
      (folder / label).mkdir()
      for number in range(40):
        pixels = rng.integers(0, 60, (30, 42, 3), dtype=np.uint8) + np.uint8(brightness)
        Image.fromarray(pixels).save(folder / label / f"{number}.{('jpg', 'png', 'bmp', 'gif')[number % 4]}")

  return make_once("images", make)


@pytest.fixture(scope="session")
def bottlenecks_folder(make_once: Callable, small_images: Path, tiny_trunk: Path) -> Path:
  """What `bottlenecks` writes for `small_images`."""

  def make(folder: Path) -> None:
    from beam_retrain.pipelines import bottlenecks

    flags = (f"--input={small_images}", f"--trunk={tiny_trunk}", f"--output={folder / 'output'}", *EXACT)
    assert bottlenecks.run(flags) == 0

  return make_once("bottlenecks", make) / "output"


@pytest.fixture(scope="session")
def inception_bottlenecks(make_once: Callable, small_images: Path) -> Path:
  """The same by a whole Inception v3, a twentieth of the width, seeded random weights."""

  def make(folder: Path) -> None:
    import keras

    from beam_retrain.pipelines import bottlenecks
    from beam_retrain.transforms.core.models.inception import build_inception_v3
    from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk

    keras.utils.set_random_seed(9)
    model = build_inception_v3(0.05, 75)
    save_trunk(freeze(lambda images: model(images, training=False), 75), str(folder / "trunk"))
    flags = (f"--input={small_images}", f"--trunk={folder / 'trunk'}", f"--output={folder / 'output'}", *EXACT)
    assert bottlenecks.run(flags) == 0

  return make_once("inception", make) / "output"


@pytest.fixture(scope="session")
def trained_model(make_once: Callable, bottlenecks_folder: Path) -> Path:
  """What `train` writes for `bottlenecks_folder`."""

  def make(folder: Path) -> None:
    from beam_retrain.trainer import task

    assert task.run([f"--input={bottlenecks_folder}", f"--output={folder / 'output'}", "--rounds=20"]) == 0

  return make_once("trained", make) / "output"


class DigitsRun(NamedTuple):
  """Real handwritten digits through the real stages, quickly, with a trunk that sees 8 x 8 grey values.

  Attributes:
    data: 1,797 PNGs in plain class folders.
    bottlenecks: 30 % of them for testing.
    model: what `train` wrote.
    names: the label of each digit.
  """

  data: Path
  bottlenecks: Path
  model: Path
  # In another order than the digits: an index taken for a name would be wrong. One is a formula to a spreadsheet.
  names: tuple[str, ...] = ("zebra", "ant", "=cmd", "mule", "yak", "bee", "cow", "dog", "eel", "fox")


@pytest.fixture(scope="session")
def draw_digits() -> Callable[[Path, int, Callable[[int, str], str]], None]:
  """Writes the first digits of scikit-learn as PNGs: (folder, how many, (number, label) -> path in the folder)."""

  def draw(folder: Path, count: int, name: Callable[[int, str], str]) -> None:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = DigitsRun._field_defaults["names"]
    for number in range(count):
      path = folder / name(number, labels[digits.target[number]])
      path.parent.mkdir(parents=True, exist_ok=True)
      # 0..16 -> 0..240
      Image.fromarray((digits.images[number] * 15).astype(np.uint8)).resize((16, 16)).save(path)

  return draw


@pytest.fixture(scope="session")
def made(make_once: Callable, draw_digits: Callable) -> DigitsRun:
  def make(work: Path) -> None:
    import tensorflow as tf

    from beam_retrain.pipelines import bottlenecks
    from beam_retrain.trainer import task
    from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk

    draw_digits(work / "data", 1797, lambda number, label: f"{label}/{number}.png")
    # float32 [N, 16, 16, 3] -> float32 [N, 64].
    frozen = freeze(lambda images: tf.reshape(tf.nn.avg_pool2d(images[..., :1], 2, 2, "SAME"), [-1, 64]), 16)
    save_trunk(frozen, str(work / "trunk"))
    trunk = [f"--trunk={work / 'trunk'}", "--testing_percentage=30"]
    assert bottlenecks.run([f"--input={work / 'data'}", f"--output={work / 'bottlenecks'}", *trunk]) == 0
    assert task.run([f"--input={work / 'bottlenecks'}", f"--output={work / 'model'}"]) == 0

  work = make_once("digits", make)
  return DigitsRun(work / "data", work / "bottlenecks", work / "model")


class QuickStart(NamedTuple):
  """What README's first command, run as users run it in an empty folder, left there; `copy` is another such folder."""

  folder: Path
  copy: Path
  printed: str


@pytest.fixture(scope="session")
def quick_start(make_once: Callable) -> QuickStart:
  def make(work: Path) -> None:
    (work / "first").mkdir()
    (command,) = re.findall(r"```console\n\$ (beam-retrain run .*)\n", (ROOT / "README.md").read_text())
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    options = {"cwd": work / "first", "env": environment, "capture_output": True, "text": True}
    ran = subprocess.run(command, shell=True, check=False, **options)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    (work / "printed").write_text(ran.stdout)
    shutil.copytree(work / "first", work / "copy")

  work = make_once("quick-start", make)
  return QuickStart(work / "first", work / "copy", (work / "printed").read_text())


@pytest.fixture(scope="session")
def bundled_digits(make_once: Callable, draw_digits: Callable) -> Path:
  """300 digits (`data`), their `bottlenecks` by the bundled trunk, 30 % for testing, and a `model`."""

  def make(work: Path) -> None:
    from beam_retrain.pipelines.cli import main

    draw_digits(work / "data", 300, lambda number, label: f"{label}/{number}.png")
    given = (f"--input={work / 'data'}", "--trunk=bundled", "--testing_percentage=30")
    assert main(["bottlenecks", *given, f"--output={work / 'bottlenecks'}"]) == 0
    assert main(["train", f"--input={work / 'bottlenecks'}", f"--output={work / 'model'}"]) == 0

  return make_once("bundled-digits", make)
