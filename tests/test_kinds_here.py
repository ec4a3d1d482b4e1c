"""Kinds of trunks: what they are called, what they are told apart by, and which of them a machine can run."""

from __future__ import annotations

import pytest

from transforms.core import kinds_here
from transforms.core.kinds_here import why_not_here
from transforms.core.trunk_kind import TrunkKind

BASE = "5" * 64


@pytest.fixture
def processor(tmp_path):
  """Writes what Linux says of a processor with some flags."""

  def write(*flags: str):
    path = tmp_path / f"cpuinfo{len(flags)}"
    path.write_text(f"processor\t: 0\nvendor_id\t: Ours\nflags\t\t: fpu {' '.join(flags)} avx\nbugs\t\t: none\n")
    return path

  return write


def test_the_plain_kind_has_the_trunk_s_own_fingerprint_and_each_other_one_of_its_own():
  assert TrunkKind().fingerprint(BASE) == BASE
  kinds = [
    TrunkKind("openvino"),
    TrunkKind("tensorflow", "bfloat16"),
    TrunkKind("openvino", "bfloat16"),
    TrunkKind("openvino", "int8", "a" * 64),
    TrunkKind("openvino", "int8", "b" * 64),
  ]
  prints = [kind.fingerprint(base) for kind in kinds for base in (BASE, "6" * 64)]
  assert len({BASE, *prints}) == 11
  assert all(len(found) == 64 for found in prints)


def test_what_an_earlier_version_says_of_its_trunk_is_the_plain_kind():
  assert TrunkKind.of_card({"handle": "bundled", "fingerprint": BASE}) == TrunkKind("tensorflow", "float32")
  card = {"runtime": "openvino", "precision": "int8", "calibration": "c" * 64}
  assert TrunkKind.of_card(card) == TrunkKind("openvino", "int8", "c" * 64)
  assert str(TrunkKind.of_card(card)) == "int8 by OpenVINO"


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bfloat16_is_for_processors_that_have_it(processor, flag):
  bfloat16 = TrunkKind("tensorflow", "bfloat16")
  assert why_not_here(bfloat16, processor(flag)) == ""
  assert "--precision float32" in why_not_here(bfloat16, processor("avx512_bf16_of_another_name", "sse"))
  assert why_not_here(bfloat16, processor() / "not there")
  assert why_not_here(TrunkKind(), processor()) == ""


def test_openvino_is_asked_for_where_it_is_missing(monkeypatch):
  monkeypatch.setattr(kinds_here, "is_installed", lambda package: False)
  assert why_not_here(TrunkKind("openvino")) == "OpenVINO is not installed: pip install 'beam-retrain[fast]'"
  assert why_not_here(TrunkKind()) == ""


def test_int8_is_openvino_s():
  assert "--runtime openvino" in why_not_here(TrunkKind("tensorflow", "int8"))
