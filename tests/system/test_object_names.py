"""Every command with an object store below a folder whose name is a pattern, part of a URL, and not in ASCII."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.transfer import put_folder
from tests.conftest import EXACT
from tests.helpers import file_contents
from tests.object_stores import Server, gs, s3
from tests.system.engine_suite import assert_same, needs_engines

__all__ = ["gs", "s3"]  # fixtures

pytestmark = needs_engines

_NAME = "a [b]*?\\ c#d%41&e+f é猫"
_IMAGES = 90
_STEPS = ("converted", "bottlenecks", "listed", "model", "evaluation", "arrays", "tables")


def _commands(root: str, trunk: Path) -> Iterator[list[str]]:
  """Yields commands that read and write below a folder."""
  of_trunk = [f"--trunk={trunk}", "--testing_percentage=30", *EXACT]
  yield ["convert", f"--input={root}/data", f"--output={root}/converted", "--formats=png"]
  yield ["bottlenecks", f"--input={root}/converted", f"--output={root}/bottlenecks", *of_trunk]
  listed = [f"--input={root}/listed.csv", f"--output={root}/listed", f"--reuse={root}/bottlenecks"]
  yield ["bottlenecks", *listed, *of_trunk]
  yield ["train", f"--input={root}/bottlenecks", f"--output={root}/model", "--rounds=3"]
  yield ["evaluate", f"--input={root}/converted", f"--model={root}/model", f"--output={root}/evaluation"]
  yield ["export", f"--input={root}/bottlenecks", f"--output={root}/arrays", "--format=npz"]
  yield ["export", f"--input={root}/evaluation", f"--output={root}/tables", "--format=parquet"]


def _run(root: str, trunk: Path, flags: list[str]) -> None:
  for argv in _commands(root, trunk):
    engine = [] if argv[0] == "train" else ["--runner=FnApiRunner"]
    assert main([*argv, *engine, *flags]) == 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory, draw_digits: Callable) -> Path:
  """What the commands write on a local disk, below a plain name."""
  root = tmp_path_factory.mktemp("plain")
  names = [f"{'ab'[number % 2]} [{number % 3}]#/{number}*?%2F.png" for number in range(_IMAGES)]
  draw_digits(root / "data", _IMAGES, lambda number, _: names[number])
  (root / "listed.csv").write_text("\n".join(["file_name,label", *(f"data/{name},x{name[0]}" for name in names)]))
  # float32 [N, 16, 16, 3] -> float32 [N, 64].
  frozen = freeze(lambda images: tf.reshape(tf.nn.avg_pool2d(images[..., :1], 2, 2, "SAME"), [-1, 64]), 16)
  save_trunk(frozen, str(root / "trunk"))
  _run(str(root), root / "trunk", [])
  return root


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_names_of_every_character(kind: str, plain: Path, request: pytest.FixtureRequest) -> None:
  server: Server = request.getfixturevalue(kind)
  server.use()
  root = f"{server.url}/{_NAME}"
  put_folder(str(plain / "data"), f"{root}/data")
  files.write_text(f"{root}/listed.csv", (plain / "listed.csv").read_text())
  _run(root, plain / "trunk", list(server.flags))
  for name in _STEPS:
    if name != "model":
      assert_same(server.bucket / _NAME / name, plain / name, has_same_inputs=False)
  made, expected = (file_contents(folder / "model" / "trunk") for folder in (server.bucket / _NAME, plain))
  assert made.keys() == expected.keys()
  assert {path.name for path in server.bucket.iterdir()} - {".sgwtmp"} == {_NAME}
