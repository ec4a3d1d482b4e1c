"""`bottlenecks --retry_from` on each kind of input: IDX files, records, manifests, imported text, distortions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.pipelines import convert
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.records.schema import decode_bottleneck, decode_image, encode_image
from beam_retrain.transforms.core.records.tfrecord import frame, read_records
from tests.helpers import forget_list, read_json
from tests.pipelines.requests.retry_suite import (
  BAD,
  PERCENTAGES,
  Broken,
  broken,
  check_ledgers,
  check_same_as_cold,
  drawn,
  kept_broken,
  retry,
  run,
  spoil,
  trunk,
)

__all__ = ["broken", "drawn", "kept_broken", "trunk"]  # fixtures


def _write_idx(folder: Path, labels: Sequence[int]) -> Path:
  folder.mkdir(exist_ok=True)
  pixels = np.random.default_rng(5).integers(0, 256, (len(labels), 9, 8), dtype=np.uint8)
  for name, some in (("train", slice(0, 60)), ("t10k", slice(60, None))):
    (folder / f"{name}-images-idx3-ubyte").write_bytes(encode_idx(pixels[some]))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(encode_idx(np.array(labels[some], np.uint8)))
  return folder


def test_idx_files_whose_labels_were_repaired(trunk, tmp_path):
  sound = [number % 3 for number in range(100)]
  bad = list(sound)
  bad[5], bad[70], bad[71] = 7, 9, 3
  assert run(_write_idx(tmp_path / "data", bad), tmp_path / "bad", trunk, "--classes=3") == 3
  _write_idx(tmp_path / "data", sound)
  assert retry(tmp_path / "bad", tmp_path / "out") == 0
  assert run(tmp_path / "data", tmp_path / "cold", trunk, "--classes=3") == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=3)
  check_ledgers(tmp_path / "bad", tmp_path / "out", repaired=3)


def test_records_that_were_repaired(trunk, tmp_path):
  data = _write_idx(tmp_path / "idx", [number % 3 for number in range(100)])
  records = tmp_path / "records"
  assert convert.run([f"--input={data}", f"--output={records}", "--formats=tfrecord", "--classes=3"]) == 0
  (path,) = (records / "records").glob("training-*.tfrecord")
  sound = path.read_bytes()
  with path.open("rb") as file:
    images = list(map(decode_image, read_records(file, path.name)))
  spoilt = []
  for number, image in enumerate(images):
    encoded = image.encoded[:-20] if number in (3, 9) else image.encoded
    spoilt.append(frame(encode_image(image.__class__(image.key, image.label, encoded, "png", 9, 8), int(image.label))))
  forget_list(records)
  path.write_bytes(b"".join(spoilt))
  assert run(records, tmp_path / "bad", trunk, "--validation_percentage=40") == 3
  path.write_bytes(sound)
  assert retry(tmp_path / "bad", tmp_path / "out") == 0
  assert run(records, tmp_path / "cold", trunk, "--validation_percentage=40") == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=2)
  check_ledgers(tmp_path / "bad", tmp_path / "out", repaired=2)


def test_imported_text_bottlenecks_stay(drawn, trunk, tmp_path):
  data = Path(shutil.copytree(drawn, tmp_path / "data"))
  texts = tmp_path / "texts"
  for number, path in enumerate(sorted(data.rglob("*.png"))):
    if number % 2:
      text = texts / f"{path.relative_to(data)}.txt"
      text.parent.mkdir(parents=True, exist_ok=True)
      text.write_text(",".join(map(str, np.random.default_rng(number).normal(size=64).astype(np.float32))))
  sound = spoil(data)
  flags = (trunk, *PERCENTAGES, f"--bottleneck_dir={texts}")
  assert run(data, tmp_path / "bad", *flags) == 3
  Broken(data, sound, tmp_path / "bad", flags).repair()
  assert retry(tmp_path / "bad", tmp_path / "out") == 0
  assert run(data, tmp_path / "cold", *flags) == 0
  computed = sum(not (texts / f"{key}.txt").exists() for key in sound)
  assert computed > 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=computed)
  os.utime(next(texts.rglob("*.txt")), (1, 1))
  with pytest.raises(InputError, match="have changed since the run that wrote"):
    retry(tmp_path / "bad", tmp_path / "second")


def test_equal_images_that_were_repaired_are_computed_once(broken, tmp_path):
  first, *others = broken.sound
  same = dict.fromkeys(broken.sound, broken.sound[first])
  broken._replace(sound=same).repair()
  assert retry(broken.output, tmp_path / "out") == 0
  assert run(broken.data, tmp_path / "cold", *broken.flags) == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=1)
  found = []
  for path in (tmp_path / "out" / "records").glob("*.tfrecord"):
    with path.open("rb") as file:
      found += [one for one in map(decode_bottleneck, read_records(file, path.name)) if one.key in same]
  assert len(found) == len(others) + 1
  for one in found:
    np.testing.assert_array_equal(one.vector, found[0].vector)


def test_a_manifest_s_images(drawn, trunk, tmp_path):
  data = Path(shutil.copytree(drawn, tmp_path / "data"))
  sound = spoil(data)
  keys = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
  splits = ("training", "training", "testing", "validation")
  rows = [f"data/{key},{key.split('/')[0]},{splits[number % 4]}" for number, key in enumerate(keys)]
  manifest = tmp_path / "images.csv"
  manifest.write_text("\n".join(["file_name,label,split", *rows, ""]))
  (data / list(sound)[5]).unlink()  # not even a link any more: the manifest lists it all the same
  assert run(manifest, tmp_path / "bad", trunk) == 3
  assert read_json(tmp_path / "bad" / "stats.json")["reasons"]["UNREADABLE"] == 1
  assert set(read_json(tmp_path / "bad" / "stats.json")["splits"]) == {"training", "validation", "testing"}
  Broken(data, sound, tmp_path / "bad", ()).repair()
  assert retry(tmp_path / "bad", tmp_path / "out") == 0
  assert run(manifest, tmp_path / "cold", trunk) == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=BAD)
  check_ledgers(tmp_path / "bad", tmp_path / "out", repaired=BAD)
  manifest.write_text("\n".join(["file_name,label,split", *rows[1:], ""]))
  with pytest.raises(InputError, match=r"the input has \d+ training images, but had \d+"):
    retry(tmp_path / "bad", tmp_path / "second")


def test_distorted_variants_are_taken_shard_by_shard(made, trunk, tmp_path):
  data = Path(shutil.copytree(made.data, tmp_path / "data"))
  flags = (trunk, "--testing_percentage=20", "--flip_left_right", "--random_scale=10", "--distortion_copies=2")
  flags += ("--distortion_seed=3",)
  key = _first_training_key(tmp_path, data, flags)
  sound = {key: (data / key).read_bytes()}
  (data / key).write_bytes(b"")
  assert run(data, tmp_path / "bad", *flags) == 3
  Broken(data, sound, tmp_path / "bad", ()).repair()
  shard, other = (f"training-0000{number}-of-00002.tfrecord" for number in (0, 1))
  # What is planted there shows whether it is copied: nothing else has these bytes.
  planted = (tmp_path / "bad" / "distorted" / other).read_bytes()[::-1]
  (tmp_path / "bad" / "distorted" / other).write_bytes(planted)
  report = tmp_path / "bad" / "distorted" / ".shards" / f"{other}.json"
  report.write_text(json.dumps({**json.loads(report.read_text()), "sha256": hashlib.sha256(planted).hexdigest()}))
  assert retry(tmp_path / "bad", tmp_path / "out") == 0
  cold = tmp_path / "cold"
  assert (tmp_path / "out" / "distorted" / shard).read_bytes() == (cold / "distorted" / shard).read_bytes()
  assert (tmp_path / "out" / "distorted" / other).read_bytes() == planted
  assert read_json(tmp_path / "out" / "stats.json")["distorted"] == read_json(cold / "stats.json")["distorted"]
  check_same_as_cold(tmp_path / "out", cold, computed=1)


def _first_training_key(tmp_path: Path, data: Path, flags: Sequence[str]) -> str:
  """Returns the key of an image of the first of two training shards, by a run that finds all of them sound."""
  assert run(data, tmp_path / "cold", *flags) == 0
  path = tmp_path / "cold" / "records" / "training-00000-of-00002.tfrecord"
  with path.open("rb") as file:
    return decode_bottleneck(next(read_records(file, path.name))).key


def test_distortions_that_contradict_are_refused(kept_broken, tmp_path):
  for flag in ("--flip_left_right", "--random_crop=10", "--distortion_copies=2"):
    with pytest.raises(InputError, match=f"{flag.replace('=', ' ')}.* contradicts .* it was not given"):
      retry(kept_broken.output, tmp_path / "out", flag)
