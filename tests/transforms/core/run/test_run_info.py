"""`info.json` is written and read as it was, without secrets; somebody else's is refused."""

from __future__ import annotations

import json

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.output_folder import read_info
from beam_retrain.transforms.core.run.run_info import RunInfo, describe_run
from beam_retrain.transforms.core.runtimes.trunk_info import NO_TRUNK, TrunkInfo
from beam_retrain.transforms.core.runtimes.variant import Variant


def test_a_trunk_of_0_2_has_no_variant_yet():
  trunk = {"handle": "bundled", "fingerprint": "f" * 64, "input_px": 75, "dimensions": 512}
  info = RunInfo.from_json(json.dumps({"stage": "bottlenecks", "trunk": trunk}).encode())
  assert info is not None
  assert info.trunk == TrunkInfo(**trunk, base_fingerprint="f" * 64, variant=Variant())
  assert RunInfo.from_json(b'{"stage": "convert"}').trunk == NO_TRUNK


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00\xff"])
def test_somebody_else_s_info_is_refused(tmp_path, text):
  (tmp_path / "info.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(InputError, match="give the folder that `beam-retrain convert` wrote"):
    read_info(str(tmp_path), "convert")


def test_entries_come_back_and_unknown_ones_are_kept():
  trunk = TrunkInfo("x", "f" * 64, 75, 512, "f" * 64)
  entries = {"stage": "train", "settings": {"seed": 0}, "trunk": trunk.to_json(), "has_splits": False, "later": None}
  info = RunInfo.from_json(json.dumps(entries).encode())
  assert info is not None
  assert (info.settings, info.trunk, info.has_splits, info.retrain_names) == ({"seed": 0}, trunk, False, None)
  assert json.loads(info.to_json()) == {**entries, "versions": {}}


def test_secrets_of_the_command_line_are_not_kept():
  argv = [
    *("--input=s3://b/a", "--s3_access_key_id=first", "--s3_secret_access_key", "second", "--s3_session_token=third"),
    *("--output", "s3://b/c"),
  ]
  assert describe_run("convert", {}, argv).command == (
    "beam-retrain convert --input=s3://b/a --s3_access_key_id=... --s3_secret_access_key ... --s3_session_token=..."
    " --output s3://b/c"
  )
