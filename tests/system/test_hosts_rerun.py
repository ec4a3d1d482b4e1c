"""A job over hosts that fails when one goes silent, and the same command after it; Spark gives the work to others."""

from __future__ import annotations

from beam_retrain.transforms.core.run.exit_codes import ExitCode
from tests.system.engine_suite import assert_same, needs_engines
from tests.system.test_hosts import BOUND_SECS, Local, cut, embed, needs_hosts, up


@needs_engines
@needs_hosts
def test_on_request_a_job_that_fails_says_so_and_the_next_goes_on(tmp_path):
  local = Local(tmp_path)
  with up("flink", tmp_path / "hosts", retries=0) as lab:
    job = cut(lab, local, "worker1", "failed")
    printed, _ = job.communicate(timeout=BOUND_SECS)
    assert job.returncode == ExitCode.FAILED, printed
    said = printed.splitlines()
    assert "Traceback" not in printed
    assert "run the same command again" in said[-1]
    reports = lab.bucket / "failed" / "records" / ".shards"
    finished = {path: path.stat().st_mtime_ns for path in reports.glob("*.json")}
    print(f"it failed with {len(finished)} of 6 shards: {said[-1]}")
    lab.run("bottlenecks", *embed("s3://bucket/many"), "--output=s3://bucket/failed")
    assert_same(lab.bucket / "failed", local.bottlenecks_of(local.many), has_same_inputs=False)
    assert finished
    assert finished == {path: path.stat().st_mtime_ns for path in finished}  # not written again
