"""`make engines`, as far as it goes without a network: what is missing is said; jars are named as Java wants it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

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


def _thin_jar(folder: Path) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, ROOT / "deploy" / "engines" / "thin_jar.py", folder, "org.example.Main"]
  return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_jar_names_the_jars_beside_it(tmp_path):
  (tmp_path / "lib").mkdir()
  names = [f"{'x' * length}-{length}.jar" for length in (1, 50, 70, 140)]
  for name in names:
    (tmp_path / "lib" / name).touch()
  assert _thin_jar(tmp_path).returncode == 0
  with zipfile.ZipFile(tmp_path / "job-server.jar") as jar:
    assert jar.namelist() == ["META-INF/MANIFEST.MF"]
    manifest = jar.read("META-INF/MANIFEST.MF")
  assert all(len(line) <= 70 for line in manifest.split(b"\r\n"))
  # A line that begins with a blank goes on with the one before it.
  attributes = dict(line.split(": ", 1) for line in manifest.decode().replace("\r\n ", "").splitlines())
  assert attributes["Main-Class"] == "org.example.Main"
  assert attributes["Class-Path"].split() == sorted(f"lib/{name}" for name in names)
  # The second: what Spark cannot say that a task has failed without.
  assert {"java.base/java.nio", "java.base/sun.security.action"} <= set(attributes["Add-Opens"].split())


def test_no_jars_make_no_jar(tmp_path):
  ended = _thin_jar(tmp_path)
  assert ended.returncode == 1
  assert ended.stderr == f"thin_jar.py: {tmp_path / 'lib'} holds no jars.\n"
  assert not (tmp_path / "job-server.jar").exists()
