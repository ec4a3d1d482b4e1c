"""Machines of several kinds do not share an output."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from beam_retrain.pipelines import datasets
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.runtimes.variant import (
  ISA_LIMIT,
  has_bfloat16,
  instructions,
  is_bfloat16_faster,
  kind_of,
)
from beam_retrain.transforms.core.system.locks import Claim
from beam_retrain.transforms.shards.kinds import KIND, check_kinds, delete_kinds, join_kind

_CPU = "processor\t: 0\nflags\t\t: fpu sse4_1 avx avx2 avx_vnni avx512bw avx512_vnni avx512_bf16\n"
_LIMIT = f"{ISA_LIMIT}=AVX2"


@pytest.fixture(autouse=True)
def _without_a_limit(monkeypatch):
  monkeypatch.delenv(ISA_LIMIT, raising=False)


@pytest.mark.parametrize(
  ("limit", "found", "bfloat16"),
  [
    ("", "AVX512_CORE_BF16", True),
    ("ALL", "AVX512_CORE_BF16", True),
    ("AVX512_CORE_AMX", "AVX512_CORE_BF16", True),
    ("avx512_core", "AVX512_CORE", False),
    ("AVX2_VNNI", "AVX2_VNNI", False),
    ("AVX2", "AVX2", False),
  ],
)
def test_the_limit_of_onednn_counts(limit, found, bfloat16, tmp_path, monkeypatch):
  (tmp_path / "cpuinfo").write_text(_CPU)
  monkeypatch.setenv(ISA_LIMIT, limit)
  assert (instructions(tmp_path / "cpuinfo"), has_bfloat16(tmp_path / "cpuinfo")) == (found, bfloat16)


@pytest.mark.parametrize(
  ("vendor", "flags", "faster"),
  [
    ("AuthenticAMD", "avx512_bf16", True),
    ("AuthenticAMD", "avx512bw", False),
    ("GenuineIntel", "avx512_bf16", False),
    ("GenuineIntel", "avx512_bf16 avx512_fp16", False),
    ("GenuineIntel", "avx512_bf16 amx_bf16", True),
  ],
)
def test_bfloat16_is_faster_with_amx_or_by_amd(vendor, flags, faster, tmp_path):
  (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\nflags\t\t: fpu avx2 avx512bw {flags}\n")
  assert is_bfloat16_faster(tmp_path / "cpuinfo") == faster


def test_float32_needs_avx512_alone():
  assert kind_of("float32", "AVX512_CORE_AMX") == kind_of("float32", "AVX512_CORE") != kind_of("float32", "AVX2")
  assert kind_of("bfloat16", "AVX512_CORE_AMX") != kind_of("bfloat16", "AVX512_CORE_BF16")


@pytest.mark.parametrize(
  ("one", "other", "remedy"),
  [
    ("bfloat16-AVX512_CORE_AMX", "bfloat16-AVX512_CORE_BF16", "give --precision float32; or use machines of one kind."),
    ("float32-AVX512_CORE", "float32-AVX2", f"start all workers with {_LIMIT} in their environment; or use"),
    ("int8-AVX512_CORE_VNNI", "int8-AVX2", f"give --precision float32, and start all workers with {_LIMIT} in their"),
  ],
)
def test_a_second_kind_is_refused(one, other, remedy, tmp_path):
  claim = Claim(str(tmp_path), token="a" * 32)
  (tmp_path / ".shards").mkdir()
  join_kind(claim, one)
  join_kind(claim, one)
  with pytest.raises(InputError, match=f"{other.partition('-')[2]}, .* may differ: {remedy}".replace("(", r"\(")):
    join_kind(claim, other)
  join_kind(Claim(str(tmp_path), token="b" * 32), other)  # of the next command
  delete_kinds(str(tmp_path))
  assert list((tmp_path / ".shards").iterdir()) == []


def test_the_ledger_takes_one_kind():
  def report(name: str, *kind: str) -> ShardReport:
    return ShardReport(name, "training", 0, 0, 0, "", "", {}, extra=dict.fromkeys([KIND], *kind) if kind else {})

  same = [report("a", "float32-AVX2"), report("b", "float32-AVX2"), report("of-an-earlier-version")]
  check_kinds(same)
  with pytest.raises(InputError, match="the worker of b computes float32 with AVX2, the worker of c with AVX512_CORE"):
    check_kinds([*same, report("c", "float32-AVX512_CORE")])


_ONE_IS_LIMITED = f"""\
import os, sys
if any("sdk_worker_main" in argument for argument in sys.orig_argv):
  try:
    os.close(os.open(os.environ["FIRST"], os.O_CREAT | os.O_EXCL))
    os.environ["{ISA_LIMIT}"] = "AVX2"
  except FileExistsError:
    pass
"""


@pytest.mark.skipif(not instructions().startswith("AVX512"), reason="this processor has no AVX-512 to do without")
def test_two_workers_of_several_kinds(tmp_path):
  datasets.digits(str(tmp_path / "idx"))
  (tmp_path / "site").mkdir()
  (tmp_path / "site" / "sitecustomize.py").write_text(_ONE_IS_LIMITED)
  given = [f"--input={tmp_path / 'idx'}", "--trunk=bundled", "--precision=float32", "--batch_size=32"]

  def run(output: str, **environment: str) -> subprocess.CompletedProcess:
    two = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    argv = [sys.executable, "-m", "beam_retrain.pipelines.bottlenecks", *given, f"--output={tmp_path / output}", *two]
    return subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False)

  mixed = {"PYTHONPATH": str(tmp_path / "site"), "FIRST": str(tmp_path / "first")}
  refused = run("mixed", **mixed)
  assert refused.returncode == ExitCode.FAILED, refused.stdout
  said = refused.stderr.splitlines()[-1]
  assert said.startswith("beam-retrain: the worker on ")
  assert " computes float32 with AVX" in said
  assert said.endswith(f" differ: start all workers with {_LIMIT} in their environment; or use machines of one kind.")
  assert not (tmp_path / "mixed" / "COMPLETED").exists()
  # The remedy, in the same folder: shards of the other kind are computed anew.
  assert run("mixed", **mixed, **dict([_LIMIT.split("=")])).returncode == ExitCode.DONE
  reports = [json.loads(path.read_text()) for path in (tmp_path / "mixed" / "records" / ".shards").iterdir()]
  assert {report["extra"][KIND] for report in reports} == {"float32-AVX2"}
