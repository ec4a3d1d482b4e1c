"""Photos are known before the work, and what is said of their trunk can be typed."""

from __future__ import annotations

import hashlib
import http.server
import io
import shlex
import socket
import threading
from pathlib import Path

import pytest
from PIL import Image as Pillow
from sklearn.datasets import load_sample_images

from beam_retrain.pipelines.models.photos import are_photos, photo_trunk, reaches, say_trunk_for_photos
from beam_retrain.pipelines.models.trunk_sources import HUB_INCEPTION_V3
from beam_retrain.pipelines.run import RunRequest
from beam_retrain.transforms.core.run.next_steps import replace_flags
from beam_retrain.transforms.sources.find import find_source
from tests.helpers import encode, noise_image

PHOTO = encode(load_sample_images().images[0], "JPEG")
KERAS_WEIGHTS = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"


def smaller(px: int, mode: str = "RGB") -> bytes:
  file = io.BytesIO()
  Pillow.open(io.BytesIO(PHOTO)).resize((px, px)).convert(mode).save(file, "PNG")
  return file.getvalue()


@pytest.mark.parametrize(
  ("images", "are"),
  [
    ([PHOTO], True),
    ([PHOTO, smaller(65), smaller(200, "L")], True),
    ([PHOTO, *[smaller(200, "L")] * 3], True),  # brick, gravel and grass are grey
    ([smaller(64)], False),  # as small as a glyph
    ([smaller(200, "L"), smaller(300, "1")], False),
    ([PHOTO[:3000]], False),  # damaged
    ([noise_image(1)], False),
    ([], False),
  ],
)
def test_colour_photos_are_told_from_glyphs(images, are):
  assert are_photos(images) == are


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
  """A machine without network and caches."""
  for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
  monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
  monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
  return tmp_path


def test_the_trunk_is_one_that_can_be_had(alone):
  flags, where = photo_trunk()
  assert flags == {"trunk": "keras:InceptionV3", "trunk_weights": KERAS_WEIGHTS}
  assert where.startswith(". TF Hub cannot be reached from here: bring https://storage.googleapis.com/")
  (alone / "keras" / "models").mkdir(parents=True)
  (alone / "keras" / "models" / KERAS_WEIGHTS).touch()
  assert photo_trunk()[0] == {"trunk": "keras:InceptionV3"}
  (alone / "hub" / hashlib.sha1(HUB_INCEPTION_V3.encode()).hexdigest()).mkdir(parents=True)
  assert photo_trunk() == ({"trunk": "inception_v3"}, f", which is in {alone / 'hub'}")


def test_what_is_said_is_one_line_whose_command_can_be_typed(alone, capsys):
  for label in ("china", "flower"):
    (alone / "my photos" / label).mkdir(parents=True)
    for number in range(4):
      (alone / "my photos" / label / f"{number}.jpg").write_bytes(smaller(100 + number))
  (alone / "my photos" / "LICENSE.txt").write_text("free")
  typed = ["run", "--data", str(alone / "my photos"), "--trunk", "bundled", "--output=out", "--epochs=3"]
  say_trunk_for_photos(find_source(str(alone / "my photos"), None), typed)
  out, err = capsys.readouterr()
  assert (out, err.count("\n")) == ("", 1)
  assert "these are colour photos, and the bundled trunk knows only glyphs: take Inception v3" in err
  words = shlex.split(err[err.index("beam-retrain run") :])
  request = RunRequest.parse(words[2:])
  assert request.data == str(alone / "my photos")
  assert request.stage_flags == {"trunk": "keras:InceptionV3", "trunk_weights": KERAS_WEIGHTS, "epochs": 3}


def test_a_server_that_answers_is_reached_and_another_is_not(monkeypatch):
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
  threading.Thread(target=server.handle_request, daemon=True).start()
  assert reaches(f"http://127.0.0.1:{server.server_port}/")
  server.server_close()
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    assert not reaches(f"http://127.0.0.1:{free.getsockname()[1]}/")


def test_given_flags_are_replaced_in_either_form():
  words = ["run", "--trunk", "bundled", "--trunk_weights=x", "--data", "d", "--trunk=bundled", "-q"]
  assert replace_flags(words, {"trunk": "a"}) == ["run", "--trunk_weights=x", "--data", "d", "-q", "--trunk=a"]
  assert replace_flags(words, {"trunk": None, "data": "e"}) == ["run", "--trunk_weights=x", "-q", "--data=e"]
