"""Where the tests find real data: the only file that knows of the folder that developers share."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def _shared(name: str) -> Path:
  folder = Path(os.environ.get("BEAM_RETRAIN_TEST_DATA", _SHARED_DATA)) / name
  if not folder.is_dir():
    pytest.skip(f"{folder} is not there: set BEAM_RETRAIN_TEST_DATA to a folder that holds {name}/")
  return folder


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
  """The four MNIST files, gzip-compressed, as published."""
  return _shared("mnist")


@pytest.fixture(scope="session")
def inception_weights() -> Path:
  """Keras weights of a full-size, really trained Inception v3 without its top."""
  return _shared("inception_v3") / "inception_v3_notop.h5"


@pytest.fixture(scope="session")
def tiny_trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A trunk's SavedModel folder: a real Inception v3, 75 px, a twentieth of the width, seeded random weights."""
  import keras

  from transforms.core.inception import build_inception_v3
  from transforms.core.trunk import freeze, save_trunk

  keras.utils.set_random_seed(7)
  model = build_inception_v3(0.05, 75)
  folder = tmp_path_factory.mktemp("trunk") / "tiny"
  save_trunk(freeze(lambda images: model(images, training=False), 75), str(folder))
  return folder


@pytest.fixture
def collect(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], list]:
  """Runs `root | transform` on FnApiRunner and returns the elements, in no order.

  By way of a file: a list that a lambda closes over is pickled, and the worker fills a copy.
  """

  def run(transform: Any) -> list:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    path = tmp_path_factory.mktemp("collected") / "elements.pickle"
    with beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"])) as root:
      _ = root | transform | beam.combiners.ToList() | beam.Map(lambda found: path.write_bytes(pickle.dumps(found)))
    return pickle.loads(path.read_bytes())

  return run
