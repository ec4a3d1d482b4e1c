"""How fast images are decoded: the jobs' way (look, decode, resize to 299 px), and decoders alone, in turn on one core.

  python -m benchmarks.decode --data FOLDER_OF_MNIST [--before CHECKOUT_OF_0.4] [--photos 1000]

Every contender is a process of its own on the same core, with all images in memory; one after the other goes through
the same few of them, and so on. Seconds are the processor's, since other work would spoil those of a clock. The photos
are synthesised from a seed, 1 to 12 megapixels, evenly in the logarithm: a few dozen different ones, each many times.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import io
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

_INPUT_PX = 299
_DISTINCT = 24
_PARTS = 5
_WARM = 32
_ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
  parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's training images")
  parser.add_argument("--before", type=Path, help="checkout to compare with")
  parser.add_argument("--small", type=int, default=5_000, help="images of MNIST (default 5,000)")
  parser.add_argument("--photos", type=int, default=1_000, help="photos (default 1,000)")
  given = parser.parse_args()
  ours = ["now", *(["before"] if given.before else [])]
  others = ["tf.io.decode_jpeg", "Pillow", *(["OpenCV"] if importlib.util.find_spec("cv2") else [])]
  digits = _digits(given.data, given.small)
  kinds = {
    f"{given.small:,} JPGs of MNIST, 28 x 28": ("JPEG", [_encoded(pixels, "JPEG") for pixels in digits]),
    f"{given.photos:,} colour JPEGs of 1 to 12 megapixels": ("JPEG", _photos(given.photos)),
    f"{given.small:,} PNGs of MNIST, looked at only": ("look", [_encoded(pixels, "PNG") for pixels in digits]),
  }
  for title, (way, images) in kinds.items():
    print(f"{title} ({sum(map(len, images)) / len(images) / 1e3:,.1f} kB each)", flush=True)
    _compare(way, images, ours + (others if way == "JPEG" else []), given.before)


def _compare(way: str, images: Sequence[bytes], names: list[str], before: Path | None) -> None:
  """Prints the rate of each, and its ratio to ours: of the whole, and of the parts from the least to the largest."""
  with tempfile.NamedTemporaryFile(prefix="decode-") as file:
    pickle.dump(images, file)
    file.flush()
    workers = {name: _start(name, way, file.name, before) for name in names}
    bounds = [len(images) * part // _PARTS for part in range(_PARTS + 1)]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(_PARTS):
      for name in names[number % len(names) :] + names[: number % len(names)]:
        seconds[name].append(_ask(workers[name], bounds[number], bounds[number + 1]))
    for worker in workers.values():
      worker.communicate()
  for name in names:
    rate = len(images) / sum(seconds[name])
    ratios = sorted(theirs / ours for ours, theirs in zip(seconds["now"], seconds[name], strict=True))
    ratio = f"ours is {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"  {name:18} {rate:12,.1f} images/s {1e6 / rate:12,.1f} us each; {ratio}", flush=True)


def _start(name: str, way: str, images: str, before: Path | None) -> subprocess.Popen[str]:
  tree = before if name == "before" else _ROOT
  command = [sys.executable, __file__, "--contender", name, way, images, str(tree)]
  environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
  worker = subprocess.Popen(
    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
  )
  _ask(worker, 0, _WARM)
  return worker


def _ask(worker: subprocess.Popen[str], start: int, end: int) -> float:
  assert worker.stdin
  assert worker.stdout
  worker.stdin.write(f"{start} {end}\n")
  worker.stdin.flush()
  return float(worker.stdout.readline())


def _work(name: str, way: str, path: str, tree: str) -> None:
  """A contender's process: reads which images to go through, and answers with the processor's seconds."""
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  sys.path.insert(0, tree)
  images = pickle.loads(Path(path).read_bytes())
  go = _contender(name, way)
  for line in sys.stdin:
    start, end = map(int, line.split())
    began = time.process_time()
    go(images[start:end])
    print(time.process_time() - began, flush=True)


def _contender(name: str, way: str) -> Callable[[Sequence[bytes]], object]:
  if name in ("now", "before"):
    return _ours(way)
  if name == "Pillow":
    return lambda images: [Pillow.open(io.BytesIO(one)).convert("RGB").load() for one in images]
  if name == "OpenCV":
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    return lambda images: [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR) for one in images]
  import tensorflow as tf

  return lambda images: [tf.io.decode_jpeg(one, channels=3) for one in images]


def _ours(way: str) -> Callable[[Sequence[bytes]], object]:
  """Returns what a job does with images, but for the network."""
  is_now = (Path(sys.path[0]) / "beam_retrain").is_dir()
  core = "beam_retrain.transforms.core." if is_now else "transforms.core."
  if way == "look":
    module = importlib.import_module(f"{core}images{'.headers' if is_now else ''}")
    look = module.probe_image if is_now else module.look
    return lambda images: [look(one) for one in images]
  inference = importlib.import_module(f"{core}{'models.' if is_now else ''}inference")
  schema = importlib.import_module(f"{core}{'records.' if is_now else ''}schema")
  model = inference.decoding_model(_INPUT_PX, lambda pixels: {"count": np.zeros(int(pixels.shape[0]))})

  def go(images: Sequence[bytes]) -> None:
    found = list(inference.infer_images((schema.Image("", "", one) for one in images), model))
    assert all(isinstance(one, inference.Inferred) for one in found)

  return go


def _digits(folder: Path, count: int) -> np.ndarray:
  """Returns uint8 [count, 28, 28]."""
  with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
    return np.frombuffer(file.read(16 + count * 28 * 28), np.uint8, offset=16).reshape(-1, 28, 28)


def _encoded(pixels: np.ndarray, kind: str, **options: int) -> bytes:
  file = io.BytesIO()
  Pillow.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def _photos(count: int) -> list[bytes]:
  """Returns JPEGs, in a seeded order, of which `_DISTINCT` are different."""
  rng = np.random.default_rng(17)
  megapixels = np.exp(np.linspace(0, np.log(12), _DISTINCT))
  photos = [_encoded(_photo(rng, int((1e6 * size / 12) ** 0.5)), "JPEG", quality=90) for size in megapixels]
  return [photos[number % _DISTINCT] for number in rng.permutation(count)]


def _photo(rng: np.random.Generator, unit: int) -> np.ndarray:
  """Returns uint8 [3 units, 4 units, 3]: soft shapes of all sizes, edges, and a sensor's noise."""
  width, height = 4 * unit, 3 * unit
  total = np.zeros((height, width, 3), np.float32)
  for cells in (3, 6, 12, 24, 48, 96, 192):
    for channel in range(3):
      small = Pillow.fromarray(rng.normal(0, 160 / cells**0.6, (cells * 3 // 2, cells * 2)).astype(np.float32))
      total[..., channel] += np.asarray(small.resize((width, height), Pillow.Resampling.BICUBIC))
  total[total[..., 0] > 40] += 50
  total += 110 + rng.normal(0, 4, (height, width, 1)).astype(np.float32)
  return np.clip(total, 0, 255).astype(np.uint8)


if __name__ == "__main__":
  if sys.argv[1:2] == ["--contender"]:
    _work(*sys.argv[2:])
  else:
    main()
