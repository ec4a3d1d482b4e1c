"""`make engines`, as far as it goes without a network: what is missing is said."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.helpers import ROOT


@pytest.mark.parametrize(
  ("there", "target", "said"),
  [
    ([], "flink/job-server.jar", "java is missing: install Java 17 (on Debian openjdk-17-jre-headless)"),
    (["java"], "flink/job-server.jar", "mvn is missing: install Maven (on Debian maven)"),
    (["java"], "spark/job-server.jar", "mvn is missing: install Maven (on Debian maven)"),
    (["java"], "prism-v2.77.0/prism", "go is missing: install Go 1.25 or newer from https://go.dev/dl"),
    ([], "versitygw-v1.8.0/versitygw", "go is missing: install Go 1.25 or newer from https://go.dev/dl"),
    ([], "fake-gcs-server-v1.56.1/fake-gcs-server", "go is missing: install Go 1.25 or newer from https://go.dev/dl"),
  ],
)
def test_a_tool_that_is_missing_is_named_in_one_line(there, target, said, tmp_path):
  make = shutil.which("make")
  assert make
  (tmp_path / "bin").mkdir()
  for name in there:
    (tmp_path / "bin" / name).symlink_to("/bin/true")
  ended = subprocess.run(
    [make, f"ENGINES={tmp_path / 'engines'}", f"{tmp_path / 'engines'}/{target}"],
    cwd=ROOT,
    env={"PATH": str(tmp_path / "bin")},
    capture_output=True,
    text=True,
    check=False,
  )
  first, *rest = ended.stderr.splitlines()
  assert first == f"make {tmp_path / 'engines'}/{target}: {said}"
  assert [line.split(":")[0] for line in rest] == ["make"]  # its own: *** Error 1
  assert ended.returncode == 2
  assert not (tmp_path / "engines").exists()


def test_all_are_brought_by_one_word():
  asked = subprocess.run(
    ["make", "--dry-run", "engines", "ENGINES=nowhere"], cwd=ROOT, capture_output=True, text=True, check=True
  ).stdout
  assert "--file deploy/engines/flink-pom.xml" in asked
  assert "--file deploy/engines/spark-pom.xml" in asked
  assert "go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0" in asked
  assert "go install github.com/versity/versitygw/cmd/versitygw@v1.8.0" in asked
  assert "go install github.com/fsouza/fake-gcs-server@v1.56.1" in asked
