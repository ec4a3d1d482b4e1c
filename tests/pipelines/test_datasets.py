"""`--data`: digits are written offline, mnist is downloaded from the first mirror that gives the right bytes."""

from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.pipelines import datasets
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.sources.idx import find_idx_splits
from tests.helpers import ROOT


def _read(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
  """A reader of its own: 16 and 8 bytes of header."""
  images = np.frombuffer((folder / f"{prefix}-images-idx3-ubyte").read_bytes(), np.uint8)[16:].reshape(-1, 28, 28)
  return images, np.frombuffer((folder / f"{prefix}-labels-idx1-ubyte").read_bytes(), np.uint8)[8:]


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("data") / "digits"
  assert datasets.resolve("digits", str(folder)) == str(folder)
  return folder


def test_digits_are_two_sound_idx_splits(digits_folder):
  assert [(pair.split, pair.count) for pair in find_idx_splits(str(digits_folder))] == [
    ("training", 1501),
    ("testing", 296),
  ]
  assert len(list(digits_folder.iterdir())) == 4


def test_each_digit_keeps_its_share_of_both_splits(digits_folder):
  from sklearn.datasets import load_digits

  (_, training), (_, testing) = _read(digits_folder, "train"), _read(digits_folder, "t10k")
  counts = np.bincount(load_digits().target)
  np.testing.assert_array_equal(np.bincount(testing), counts // 6)
  np.testing.assert_array_equal(np.bincount(training) + np.bincount(testing), counts)


def test_digits_lie_as_mnists_do(digits_folder):
  images, labels = _read(digits_folder, "train")
  weights = images.astype(np.float64)
  place = np.arange(28) + 0.5
  for axis in (1, 2):  # centre of mass, along rows and columns
    centres = (weights.sum(axis=3 - axis) @ place) / weights.sum(axis=(1, 2))
    assert np.abs(centres - 14).max() <= 0.5 + 1e-6
  ink_rows, ink_columns = (images > 0).any(axis=2).sum(axis=1), (images > 0).any(axis=1).sum(axis=1)
  assert max(ink_rows.max(), ink_columns.max()) <= 20
  assert images.max() == 255
  # Upright and not mirrored: a 7 is heavier above, a 6 below.
  above = weights[:, :14].sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
  assert np.median(above[labels == 7]) > np.median(above[labels == 6])


def test_ink_is_scaled_to_the_whole_range():
  blank_but_one = np.zeros((8, 8))
  blank_but_one[2:6, 2:6] = 16
  image = datasets.like_mnist(blank_but_one)
  assert (image.dtype, image.shape, image.min(), image.max()) == (np.uint8, (28, 28), 0, 255)
  np.testing.assert_array_equal(image, image[::-1, ::-1])  # symmetric input stays so, in the middle
  assert abs(int(image.sum()) / 255 - 10 * 10) < 8  # 4 of 8 px become 10 of 20


def test_an_off_centre_digit_loses_no_ink():
  corner = np.zeros((8, 8))
  corner[0, 0] = 16
  image = datasets.like_mnist(corner)
  assert image[8:, 8:].any()
  assert image[:8].sum() + image[:, :8].sum() == 0


def test_digits_are_left_alone_when_they_are_there(digits_folder):
  before = {path: path.stat().st_mtime_ns for path in digits_folder.iterdir()}
  datasets.digits(str(digits_folder))
  assert before == {path: path.stat().st_mtime_ns for path in digits_folder.iterdir()}
  path = digits_folder / "t10k-labels-idx1-ubyte"
  right = path.read_bytes()
  path.write_bytes(b"damaged")
  datasets.digits(str(digits_folder))
  assert path.read_bytes() == right


def test_without_scikit_learn_a_sentence_says_what_to_install(tmp_path):
  # A process in which the import fails, as it does where the package is not installed.
  code = (
    "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.datasets'] = None;"
    "from beam_retrain.pipelines import datasets; from beam_retrain.transforms.core.run.exit_codes import run_command;"
    "sys.exit(run_command(lambda argv: print(datasets.digits(*argv)), sys.argv[1:]))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
  )
  assert (done.returncode, done.stdout) == (2, "")
  assert "pip install scikit-learn" in done.stderr
  assert "Traceback" not in done.stderr


_FILES = {"a.gz": b"first", "b.gz": b"second" * 50_000}
_CHECKSUMS = {name: hashlib.md5(data).hexdigest() for name, data in _FILES.items()}


class _Handler(http.server.SimpleHTTPRequestHandler):
  def do_GET(self):
    self.server.asked.append(self.path)
    super().do_GET()

  def log_message(self, *args):
    pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
  """Serves files on the loopback; gives the address and the list of what was asked for."""
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  servers = []

  def start(files: dict[str, bytes]) -> tuple[str, list[str]]:
    root = tmp_path / f"served-{len(servers)}"
    root.mkdir()
    for name, data in files.items():
      (root / name).write_bytes(data)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(root)))
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    servers.append(server)
    return f"http://127.0.0.1:{server.server_port}/", server.asked

  yield start
  for server in servers:
    server.shutdown()
    server.server_close()


def _dead_mirror() -> str:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{free.getsockname()[1]}/"


def _mnist(folder: Path, *mirrors: str, **more) -> str:
  return datasets.mnist(str(folder), mirrors=mirrors, checksums=_CHECKSUMS, timeout_secs=60, **more)


def test_the_first_mirror_that_gives_the_right_bytes_wins(serve, tmp_path):
  wrong, _ = serve({"a.gz": b"<html>moved</html>", "b.gz": _FILES["b.gz"]})
  right, asked = serve(_FILES)
  folder = tmp_path / "new" / "mnist"
  assert _mnist(folder, _dead_mirror(), wrong, right) == str(folder)
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == _FILES
  assert asked == ["/a.gz"]


def test_files_that_are_right_are_kept_and_wrong_ones_replaced(serve, tmp_path):
  (tmp_path / "a.gz").write_bytes(_FILES["a.gz"])
  (tmp_path / "b.gz").write_bytes(b"half")
  mirror, asked = serve(_FILES)
  _mnist(tmp_path, mirror)
  assert asked == ["/b.gz"]
  assert (tmp_path / "b.gz").read_bytes() == _FILES["b.gz"]
  _mnist(tmp_path)  # no mirror is needed now


def test_when_no_mirror_helps_the_sentence_says_why_and_what_to_do(serve, tmp_path):
  wrong, _ = serve({"a.gz": b"<html>moved</html>"})
  empty, _ = serve({})
  dead = _dead_mirror()
  folder = tmp_path / "mnist"
  with pytest.raises(InputError) as error:
    _mnist(folder, dead, wrong, empty)
  said = str(error.value)
  assert f"{dead}: <urlopen error [Errno 111] Connection refused>" in said
  assert f"{wrong}: 18 bytes of MD5 {hashlib.md5(b'<html>moved</html>').hexdigest()}" in said
  assert f"{empty}: HTTP Error 404" in said
  assert "or give a folder with the four MNIST files as --data" in said
  assert list(folder.iterdir()) == []


def test_a_mirror_that_trickles_is_given_up(serve, tmp_path):
  mirror, _ = serve(_FILES)
  with pytest.raises(InputError, match="too slow"):
    _mnist(tmp_path / "mnist", mirror, max_secs=0)


def test_a_mirror_that_falls_silent_is_given_up(tmp_path, monkeypatch):
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  with socket.socket() as silent:
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    mirror = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    with pytest.raises(InputError, match="timed out"):
      datasets.mnist(str(tmp_path), mirrors=[mirror], checksums=_CHECKSUMS, timeout_secs=0.2)


def test_the_published_checksums_are_asked_for():
  assert list(datasets.MNIST_MD5.values()) == [
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
  ]
  assert all(mirror.endswith("/") for mirror in datasets.MNIST_MIRRORS)


def test_a_path_is_used_as_it_is(tmp_path):
  assert datasets.resolve(str(tmp_path), "unused") == str(tmp_path)
  assert datasets.resolve("gs://bucket/images", "unused") == "gs://bucket/images"
  with pytest.raises(InputError, match="digitz does not exist: give digits, mnist, or the path"):
    datasets.resolve("digitz", "unused")
