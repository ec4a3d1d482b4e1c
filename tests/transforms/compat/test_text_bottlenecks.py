"""Text bottlenecks of retrain.py: what it wrote reaches the records bit for bit, what is damaged is computed anew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from beam_retrain.pipelines import bottlenecks, evaluate
from beam_retrain.transforms.compat.text_bottlenecks import (
  choose_module,
  module_name,
  module_of_file,
  parse_vector,
  text_name,
)
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import Bottleneck, decode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records

_HUB = "https~tfhub.dev~google~imagenet~inception_v3~feature_vector"
_INCEPTION = ["inception_v3", "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5"]


def as_retrain_py_wrote(vector: np.ndarray) -> str:
  return ",".join(str(x) for x in vector)


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_are_those_of_retrain_py():
  handle = "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/3"
  assert module_name(handle) == f"{_HUB}~3"
  assert module_name("C:\\modules\\mine") == "C~~modules~mine"
  assert text_name("roses/1.jpg", f"{_HUB}~3") == f"roses/1.jpg_{_HUB}~3.txt"
  assert text_name("roses/1.jpg", "") == "roses/1.jpg.txt"


@pytest.mark.parametrize(
  ("name", "module"),
  [
    (f"1.jpg_{_HUB}~3.txt", f"{_HUB}~3"),
    ("a_b.JPEG_inception_v3.txt", "inception_v3"),
    ("x.jpg.png_m.txt", "m"),
    ("1.png.txt", ""),
    ("1.jpg", None),
    ("notes.txt", None),
    ("1.jpg_.txt", None),
    ("1.jpg_m.txt.tmp", None),
  ],
)
def test_the_module_stands_after_the_image(name, module):
  assert module_of_file(name) == module


@pytest.mark.parametrize(
  ("found", "handles", "chosen"),
  [
    ({f"{_HUB}~5", f"{_HUB}~3", "~m"}, _INCEPTION, f"{_HUB}~5"),
    ({"inception_v3", f"{_HUB}~5"}, _INCEPTION, "inception_v3"),
    ({f"{_HUB}~1", "https~tfhub.dev~google~imagenet~inception_v2~feature_vector~1", ""}, _INCEPTION, f"{_HUB}~1"),
    ({"~old~place"}, ["/new/place"], "~old~place"),
    ({""}, ["bundled"], ""),
  ],
)
def test_the_module_that_is_named_like_the_trunk_is_chosen(found, handles, chosen):
  assert choose_module(found, handles, "/cache") == chosen


@pytest.mark.parametrize(
  ("found", "listed"),
  [
    ({f"{_HUB}~1", f"{_HUB}~3", "x"}, f"{_HUB}~1', '{_HUB}~3'"),
    ({"x", "y"}, "'x', 'y'"),
    ({"x", ""}, "files without a module, 'x'"),
  ],
)
def test_several_modules_that_may_be_the_trunk_s_are_an_error(found, listed):
  with pytest.raises(InputError, match="/cache has text bottlenecks of several modules") as raised:
    choose_module(found, _INCEPTION, "/cache")
  assert listed in str(raised.value)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_each_number_is_read_bit_for_bit():
  bits = np.random.default_rng(1).integers(0, 2**32, 50_000, dtype=np.uint32)
  vector = bits.view(np.float32)
  vector = np.concatenate([vector[np.isfinite(vector)], np.float32([0.0, -0.0, 1e-45, 3.4028235e38, 0.1])])
  parsed = parse_vector(as_retrain_py_wrote(vector).encode())
  assert parsed is not None
  assert parsed.dtype == np.float32
  np.testing.assert_array_equal(parsed.view(np.uint32), vector.view(np.uint32))


@pytest.mark.parametrize(
  "text",
  [b"", b",", b"1.0,", b"1.0,,2.0", b"1.0,2.0e", b"1.0,x", b"nan,1.0", b"1.0,inf", b"1e39", b"\x00\x00", b"1\xff"],
)
def test_what_is_not_all_finite_numbers_is_damaged(text):
  assert parse_vector(text) is None


# --- the stage -------------------------------------------------------------------------------------------------------

_MODULE = "~somewhere~else~trunk"  # retrain.py's --tfhub_module was a folder that has been moved since


class Cache(NamedTuple):
  """Images, some of which retrain.py has text bottlenecks of.

  Attributes:
    data: class folders, whose names are no labels of retrain.py's.
    texts: its --bottleneck_dir.
    trunk: flags of today's trunk.
    vectors: key -> what the text file says.
    cold: what `bottlenecks` writes without the text files.
  """

  data: Path
  texts: Path
  trunk: tuple[str, ...]
  vectors: dict[str, np.ndarray]
  cold: Path

  def run(self, output: Path, *more: str) -> int:
    flags = [f"--input={self.data}", f"--output={output}", f"--bottleneck_dir={self.texts}"]
    return bottlenecks.run([*flags, *self.trunk, *more])

  def path(self, key: str) -> Path:
    return self.texts / f"{key}_{_MODULE}.txt"


_NAMES = {"zebra": "Zebra, (wild)", "ant": "ant", "=cmd": "=cmd"}


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory, draw_digits: Callable, made: Any) -> Cache:
  folder = tmp_path_factory.mktemp("cache")
  data, texts = folder / "data", folder / "texts"
  draw_digits(folder / "all", 400, lambda number, label: f"{label}/{number}.png")
  for label, name in _NAMES.items():
    shutil.copytree(folder / "all" / label, data / name)
  draw = np.random.default_rng(3)
  vectors = {}
  for number, path in enumerate(sorted(data.rglob("*.png"))):
    key = path.relative_to(data).as_posix()
    if number % 5:  # every fifth has none
      vectors[key] = draw.normal(size=64).astype(np.float32)
      text = texts / f"{key}_{_MODULE}.txt"
      text.parent.mkdir(parents=True, exist_ok=True)
      text.write_text(as_retrain_py_wrote(vectors[key]))
  trunk = (f"--trunk={made.data.parent / 'trunk'}", "--testing_percentage=30")
  cold = folder / "cold"
  assert bottlenecks.run([f"--input={data}", f"--output={cold}", *trunk]) == 0
  return Cache(data, texts, trunk, vectors, cold)


@pytest.fixture
def cache(unchanged: Cache, tmp_path: Path) -> Cache:
  """A copy that a test may spoil."""
  data = Path(shutil.copytree(unchanged.data, tmp_path / "data"))
  return unchanged._replace(data=data, texts=Path(shutil.copytree(unchanged.texts, tmp_path / "texts")))


def read_output(folder: Path) -> dict[str, Bottleneck]:
  found = {}
  for path in sorted((folder / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      for record in read_records(file, path.name):
        bottleneck = decode_bottleneck(record)
        found[bottleneck.key] = bottleneck
  return found


def check_records(output: Path, cache: Cache, imported: set[str]) -> None:
  """Of every image there is a record: the text's numbers where it was to be imported, else the trunk's."""
  found, cold = read_output(output), read_output(cache.cold)
  assert found.keys() == cold.keys()
  for key, bottleneck in found.items():
    expected = cache.vectors[key] if key in imported else cold[key].vector
    np.testing.assert_array_equal(bottleneck.vector.view(np.uint32), expected.view(np.uint32), err_msg=key)
    for field in ("label", "class_index", "format", "height", "width", "sha256"):
      assert getattr(bottleneck, field) == getattr(cold[key], field)


def test_text_bottlenecks_reach_the_records_and_the_trunk_runs_over_the_rest(unchanged, tmp_path, capsys):
  before = {path: path.read_bytes() for path in unchanged.texts.rglob("*.txt")}
  assert unchanged.run(tmp_path / "out") == 0
  check_records(tmp_path / "out", unchanged, set(unchanged.vectors))
  told = capsys.readouterr().out
  count, rest = len(unchanged.vectors), len(read_output(unchanged.cold)) - len(unchanged.vectors)
  assert f"imported {count} text bottlenecks from {unchanged.texts}; 0 damaged, to be computed" in told
  assert f"name the module {_MODULE}, not " in told
  stats = json.loads((tmp_path / "out" / "stats.json").read_text())
  assert stats["bottlenecks"] == {"computed": rest, "reused": count}
  cold = json.loads((unchanged.cold / "stats.json").read_text())
  assert {**stats, "bottlenecks": 0} == {**cold, "bottlenecks": 0}
  assert not (tmp_path / "out" / ".imported").exists()
  assert before == {path: path.read_bytes() for path in unchanged.texts.rglob("*.txt")}
  imported = json.loads((tmp_path / "out" / "info.json").read_text())["settings"]["bottleneck_dir"]
  assert (imported["path"], imported["module"], imported["count"]) == (str(unchanged.texts), _MODULE, count)


def test_damaged_texts_are_computed_anew(cache, tmp_path, capsys):
  keys = sorted(cache.vectors)
  whole = cache.path(keys[0]).read_bytes()
  damages = [b"", b"nan," + whole, whole[:5], whole[: len(whole) // 2], whole[: whole.rindex(b",") + 1], b"\0" * 500]
  damages += [whole.replace(b",", b";"), whole[: whole.rindex(b",")]]
  for key, damage in zip(keys, damages, strict=False):
    cache.path(key).write_bytes(damage)
  count = len(damages) + 1
  cache.path(keys[count - 1]).unlink()
  cache.path(keys[count - 1]).mkdir()
  assert cache.run(tmp_path / "out") == 0
  check_records(tmp_path / "out", cache, set(keys[count:]))
  told = f"imported {len(keys) - count} text bottlenecks from {cache.texts}; {count} damaged, to be computed\n"
  assert told in capsys.readouterr().out


def test_texts_of_another_trunk_s_length_are_refused_before_anything_is_touched(cache, tmp_path):
  for key in cache.vectors:
    cache.path(key).write_text(as_retrain_py_wrote(np.float32([0.5] * 63)))
  output = Path(shutil.copytree(cache.cold, tmp_path / "out"))
  before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
  first = cache.path(min(cache.vectors))
  sentence = (
    "has 63 numbers, but the trunk gives 64: it is of another trunk. Give the trunk .* or leave --bottleneck_dir out"
  )
  with pytest.raises(InputError, match=sentence) as raised:
    cache.run(output)
  assert str(first) in str(raised.value)
  assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.mark.parametrize("earlier", [True, False])
def test_one_text_that_is_too_long_is_refused_before_the_trunk_runs(earlier, cache, tmp_path):
  key = sorted(cache.vectors)[20]
  cache.path(key).write_text(as_retrain_py_wrote(np.float32([0.5] * 65)))
  output = tmp_path / "out"
  if earlier:
    shutil.copytree(cache.cold, output)
  with pytest.raises(InputError, match="has 65 numbers, but the trunk gives 64") as raised:
    cache.run(output)
  assert str(cache.path(key)) in str(raised.value)
  assert not list((output / ".fresh").rglob("*.tfrecord"))
  assert (output / "COMPLETED").exists() == earlier
  cache.path(key).unlink()
  assert cache.run(output) == 0
  check_records(output, cache, set(cache.vectors) - {key})


def test_changed_texts_are_not_taken_for_the_old_ones(cache, tmp_path):
  output = tmp_path / "out"
  assert cache.run(output) == 0
  (output / "COMPLETED").unlink()  # as if killed at the very end: all shards are there
  key = min(cache.vectors)
  changed = {**cache.vectors, key: cache.vectors[key][::-1].copy()}
  cache.path(key).write_text(as_retrain_py_wrote(changed[key]))
  os.utime(cache.path(key), (1, 1))  # of the same size
  assert cache.run(output) == 0
  check_records(output, cache._replace(vectors=changed), set(changed))


def test_of_several_modules_the_trunk_s_is_taken(cache, tmp_path, capsys):
  (trunk, *_) = cache.trunk
  own = module_name(trunk.removeprefix("--trunk="))
  keys = sorted(cache.vectors)
  for key in keys[::2]:
    cache.path(key).rename(cache.texts / f"{key}_{own}.txt")
  for key in keys:  # of another trunk, of another length: never opened
    (cache.texts / f"{key}_other.txt").write_text("1.0,2.0")
  assert cache.run(tmp_path / "out") == 0
  check_records(tmp_path / "out", cache, set(keys[::2]))
  assert "name the module" not in capsys.readouterr().out


def test_several_other_modules_are_refused(cache, tmp_path):
  (cache.texts / f"{min(cache.vectors)}.txt").write_text("1.0,2.0")
  with pytest.raises(InputError, match=r"several modules \(files without a module, '~somewhere~else~trunk'\)"):
    cache.run(tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_names_of_the_first_versions_without_a_module_and_labels_of_retrain_py(cache, tmp_path):
  for key in cache.vectors:
    cache.path(key).rename(cache.texts / f"{key}.txt")
  assert cache.run(tmp_path / "out", "--retrain_names") == 0  # which changes no folder's name
  found = read_output(tmp_path / "out")
  assert {bottleneck.label for bottleneck in found.values()} == {"cmd", "ant", "zebra wild"}
  for key, vector in cache.vectors.items():
    np.testing.assert_array_equal(found[key].vector, vector)


def test_an_image_that_cannot_be_decoded_any_more_is_quarantined_all_the_same(cache, tmp_path):
  keys = sorted(cache.vectors)
  cut, empty, text = (cache.data / key for key in keys[:3])
  cut.write_bytes(cut.read_bytes()[:-40])
  empty.write_bytes(b"")
  text.write_bytes(b"no image")
  assert cache.run(tmp_path / "out") == 3
  cold = [*cache.trunk]
  assert bottlenecks.run([f"--input={cache.data}", f"--output={tmp_path / 'cold'}", *cold]) == 3
  quarantine = (tmp_path / "out" / "quarantine.csv").read_text()
  assert quarantine == (tmp_path / "cold" / "quarantine.csv").read_text()
  assert quarantine.count("\n") == 4
  found = read_output(tmp_path / "out")
  assert not found.keys() & set(keys[:3])
  np.testing.assert_array_equal(found[keys[3]].vector, cache.vectors[keys[3]])


def test_a_folder_without_text_bottlenecks_is_refused(cache, tmp_path):
  for path in cache.texts.rglob("*.txt"):
    path.rename(path.with_suffix(".csv"))
  with pytest.raises(InputError, match=r"has no text bottlenecks .* of the classes in --input: give the folder that"):
    cache.run(tmp_path / "out")
  with pytest.raises(InputError, match="nowhere has no text bottlenecks"):
    cache._replace(texts=tmp_path / "nowhere").run(tmp_path / "out")


def test_images_with_splits_of_their_own_are_refused(cache, tmp_path):
  for split in ("training", "testing"):
    shutil.copytree(cache.data, tmp_path / "splits" / split)
  with pytest.raises(InputError, match="--bottleneck_dir is for class folders"):
    cache._replace(data=tmp_path / "splits").run(tmp_path / "out")


def test_an_output_among_the_texts_is_refused(cache, tmp_path):
  output = cache.texts / "ant" / "out"
  with pytest.raises(InputError, match=f"--output {output} overlaps with {cache.texts / 'ant'} of --bottleneck_dir"):
    cache.run(output)
  assert not output.exists()


def test_imported_numbers_are_not_reused_unawares(unchanged, made, tmp_path):
  imported = tmp_path / "imported"
  assert unchanged.run(imported) == 0
  flags = [f"--input={unchanged.data}", *unchanged.trunk, f"--reuse={imported}"]
  sentence = "were imported from retrain.py with --bottleneck_dir: use that flag here too, or omit --reuse"
  with pytest.raises(InputError, match=sentence):
    bottlenecks.run([*flags, f"--output={tmp_path / 'out'}"])
  assert bottlenecks.run([*flags, f"--output={tmp_path / 'out'}", f"--bottleneck_dir={unchanged.texts}"]) == 0
  check_records(tmp_path / "out", unchanged, set(unchanged.vectors))
  stats = json.loads((tmp_path / "out" / "stats.json").read_text())
  assert stats["bottlenecks"]["computed"] == 0
  with pytest.raises(InputError, match=r"were imported from retrain\.py.* omit --reuse"):
    evaluate.run([f"--model={made.model}", f"--input={made.data}", f"--output={tmp_path / 'e'}", f"--reuse={imported}"])
