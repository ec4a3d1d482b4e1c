"""Where the tests find real data: the only file that knows of the folder that developers share."""

from __future__ import annotations

import os
from pathlib import Path

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
