"""What `doctor` finds in the reports of workers."""

from __future__ import annotations

import pytest

from beam_retrain.pipelines.doctor.worker_checks import (
  check_clocks,
  check_memory,
  check_paths,
  check_processors,
  check_scratch,
  compare_versions,
  count_processes,
)
from beam_retrain.pipelines.doctor.worker_report import Process
from beam_retrain.pipelines.engines.dataflow import worker_memory_bytes

_VERSIONS = {
  "Python": "3.11.2",
  "apache-beam": "2.77.0",
  "tensorflow": "2.21.0",
  "openvino": "",
  "beam-retrain": "0.4.0",
}
_GIB = 1 << 30


def process(host: str = "here", pid: int = 1, **more) -> Process:
  versions = {**_VERSIONS, **more.pop("versions", {})}
  return Process(host, pid, versions, **more)


_DRIVER = process()


def test_its_process_is_what_tells_a_report_apart():
  assert (
    len({Process("a", 3, {"Python": "3.11.2"}, 5), Process("a", 3, {}, 6), Process("a", 4, {}), Process("b", 3, {})})
    == 3
  )


@pytest.mark.parametrize(
  ("workers", "said"),
  [
    ([process(pid=2)], "ok: workers: 1 process on this machine"),
    ([process("a"), process("a", 2), process("b")], "ok: workers: 3 processes on 2 hosts: a, b"),
    ([process("a", 2), process("here", 2)], "ok: workers: 2 processes on 2 hosts: a, this machine"),
    ([process("here", place="boot net1")], "ok: workers: 1 process on here"),
    ([process("a", place="n1"), process("a", place="n2")], "ok: workers: 2 processes on 2 hosts: a (n1), a (n2)"),
    ([process("a", place="n1"), process("a", 2, place="n1")], "ok: workers: 2 processes on a"),
  ],
)
def test_processes_are_counted(workers, said):
  assert str(count_processes(_DRIVER, workers, 1, "")) == said
  assert count_processes(_DRIVER, workers, len(workers), "").severity == "ok"


def test_one_process_for_several_is_a_warning():
  found = count_processes(_DRIVER, [process("a")], 2, "add more")
  assert str(found) == "warning: workers: 1 process on a, where 2 were expected: add more."
  assert "1 process on this machine, which is the command's own, where 4" in str(
    count_processes(_DRIVER, [_DRIVER], 4, "add more")
  )


def test_the_same_versions_are_told_in_a_line():
  patched = process("a", versions={"Python": "3.11.9", "openvino": "2026.4"})  # the driver does without OpenVINO
  (found,) = compare_versions(_DRIVER, [_DRIVER, patched])
  assert str(found) == "ok: versions: the same in the driver and the workers"


@pytest.mark.parametrize(
  ("name", "other", "cause", "remedy"),
  [
    (
      "Python",
      "3.12.1",
      "have 3.12.1, but the driver has 3.11.2",
      "start the command with Python 3.12, or the workers",
    ),
    ("apache-beam", "2.62.0", "have 2.62.0, but the driver has 2.77.0", "install apache-beam==2.77.0 in the workers'"),
    ("tensorflow", "", "have none, but the driver has 2.21.0", "install tensorflow==2.21.0"),
    ("beam-retrain", "0.3.0", "have 0.3.0, but the driver has 0.4.0", "install beam-retrain==0.4.0"),
    ("beam-retrain", "", "have none, but the driver has 0.4.0", "install beam-retrain==0.4.0"),
  ],
)
def test_another_version_is_a_problem_that_names_the_machines(name, other, cause, remedy):
  workers = [process("c"), *(process(host, versions={name: other}) for host in ("b", "a"))]
  (found,) = compare_versions(_DRIVER, workers)
  assert (found.severity, found.thing) == ("problem", name)
  assert found.cause == f"the workers on a, b {cause}"
  assert found.remedy.startswith(remedy)


def test_a_package_of_no_known_version_is_not_held_against_anybody():
  assert compare_versions(_DRIVER, [process("a", versions={"beam-retrain": "unknown"})])[0].severity == "ok"
  assert compare_versions(process(versions={"beam-retrain": "unknown"}), [_DRIVER])[0].severity == "ok"
  from_source = process(versions={"beam-retrain": "unknown"})
  assert compare_versions(from_source, [process("a", versions={"beam-retrain": ""})])[0].severity == "problem"


_NAMED = {"/t/saved_model.pb": "--trunk /t", "/o/x/driver": "--output /o/y"}
_OUTPUT = "--output /o/y"


def test_paths_that_all_see_are_told_in_a_line():
  workers = [process("a"), process("b")]
  (found,) = check_paths(workers, _NAMED, _OUTPUT, [])
  assert str(found) == "ok: paths: the workers read and write the same paths as this machine"
  assert "the workers read the same" in str(check_paths(workers, {"/t/saved_model.pb": "--trunk /t"}, "", [])[0])
  assert check_paths(workers, {}, "", []) == []


@pytest.mark.parametrize(
  ("worker", "is_missing", "said"),
  [
    (
      process("a", unread={"/t/saved_model.pb": "No such file or directory"}),
      False,
      "--trunk /t: the worker on a cannot read it (No such file or directory): give a path",
    ),
    (
      process("a", unread={"/o/x/driver": "another file is there"}),
      False,
      "--output /o/y: the worker on a cannot read it",
    ),
    (
      process("a", unwritten="Permission denied"),
      False,
      "--output /o/y: the worker on a cannot write there (Permission denied): give a path",
    ),
    (process("a"), True, "--output /o/y: this machine does not see what the worker on a wrote there: give a path"),
  ],
)
def test_a_path_that_is_not_seen_alike_is_a_problem(worker, is_missing, said):
  (found,) = check_paths([process("b"), worker, worker], _NAMED, _OUTPUT, [worker] if is_missing else [])
  assert found.severity == "problem"
  assert found.sentence.startswith(said)


def test_memory_is_shared_by_the_processes_of_a_machine():
  large = 1 << 30
  assert worker_memory_bytes(large) == 10 * _GIB
  roomy = [process("a", pid, memory_bytes=40 * _GIB) for pid in (1, 2)]
  (found,) = check_memory(roomy, large, "big")
  assert str(found) == "ok: memory: 40.0 GiB for 2 processes of up to 10.0 GiB with the trunk big"
  full = [*roomy, *(process("b", pid, memory_bytes=(19 + pid) * _GIB) for pid in (0, 1, 2))]
  (found,) = check_memory(full, large, "big")
  assert found.severity == "warning"
  assert found.sentence.startswith("memory: b has left 19.0 GiB for 3 processes of up to 10.0 GiB with the trunk big: ")


def test_memory_that_nobody_knows_is_not_told():
  assert check_memory([process("a")], 5, "bundled") == []
  assert "2.0 GiB and the trunk inception_v3" in str(
    check_memory([process("a", memory_bytes=8)], None, "inception_v3")[0]
  )


def test_what_a_bucket_refuses_brings_its_own_remedy():
  said = "s3://b/o cannot be read without credentials: set AWS_ACCESS_KEY_ID, or a profile."
  workers = [process(host, unread={"s3://b/o/driver": said}, unwritten=said) for host in ("b", "a")]
  found = check_paths([*workers, process("c")], {"s3://b/o/driver": "--output s3://b/o"}, "--output s3://b/o", [])
  assert [str(each) for each in found] == [
    "problem: --output s3://b/o: the worker on a, b cannot read it (s3://b/o cannot be read without credentials):"
    " where that worker is started, set AWS_ACCESS_KEY_ID, or a profile."
  ]


def test_a_clock_that_differs_is_told():
  ahead = {process("a"): 400.4, process("b"): -61.0, process("c"): 59.0}
  remedy = "this machine's: set it, best by NTP: object stores refuse requests of a clock that is wrong."
  assert [str(each) for each in check_clocks(ahead)] == [
    f"warning: clock: the one on a is 400 seconds ahead of {remedy}",
    f"warning: clock: the one on b is 61 seconds behind {remedy}",
  ]


def test_temporary_files_need_room():
  workers = [
    process("a", scratch="Read-only file system"),
    process("b", scratch_bytes=_GIB),
    process("c", scratch_bytes=9 * _GIB),
  ]
  remedy = "make room there, or set TMPDIR in the environment of the workers."
  assert [str(each) for each in check_scratch(workers, 2 * _GIB)] == [
    f"problem: temporary files: the worker on a cannot write temporary files (Read-only file system): {remedy}",
    f"problem: temporary files: the worker on b has no room for the trunk: 1.0 of 2.0 GiB: {remedy}",
  ]


@pytest.mark.parametrize(
  ("driver", "workers", "said"),
  [
    ("AVX512_CORE_AMX", ["AVX512_CORE_AMX", "AVX512_CORE_AMX", ""], ""),
    ("AVX2", ["AVX512_CORE_AMX"], ""),
    (
      "AVX2",
      ["AVX512_CORE", "AVX2"],
      "the workers differ (AVX2 on 1; AVX512_CORE on 0): start all with ONEDNN_MAX_CPU",
    ),
    ("AVX2", ["AVX512_CORE_BF16", "AVX512_CORE"], "the workers differ (AVX512_CORE on 1; AVX512_CORE_BF16 on 0): give"),
    (
      "AVX512_CORE_AMX",
      ["AVX2"],
      "this machine has bfloat16, and the workers have not: give the job --precision float32",
    ),
  ],
)
def test_other_processors_are_told(driver, workers, said):
  found = check_processors(
    process(instructions=driver), [process(str(n), instructions=it) for n, it in enumerate(workers)]
  )
  assert [each.sentence.startswith(f"processors: {said}") for each in found] == [True] * bool(said)
