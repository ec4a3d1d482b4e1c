"""Reading a job server's jar."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from beam_retrain.pipelines.engines.checks import read_jar

_FLINK = "org.apache.beam.runners.flink.FlinkJobServerDriver"


def write_jar(path: Path, main_class: str = _FLINK, libraries: tuple[str, ...] = (), version: str = "") -> Path:
  """A jar as Java's tools write it: lines of at most 72 bytes."""
  entries = f"Manifest-Version: 1.0\nMain-Class: {main_class}\n"
  if libraries:
    text = "Class-Path: " + " ".join(libraries)
    entries += text[:70] + "".join(f"\n {text[start : start + 69]}" for start in range(70, len(text), 69)) + "\n"
  with zipfile.ZipFile(path, "w") as jar:
    jar.writestr("META-INF/MANIFEST.MF", entries.replace("\n", "\r\n"))
    if version:
      jar.writestr(".flink-runtime.version.properties", f"# of Flink\nproject.version={version}\n")
  return path


def test_a_jar_that_holds_all(tmp_path):
  jar = write_jar(tmp_path / "fat.jar", version="1.20.1")
  assert read_jar(str(jar), _FLINK) == "1.20"


def test_a_jar_that_names_others(tmp_path):
  names = tuple(
    f"lib/{name}.jar" for name in ("beam-runners-core-java-2.62.0", "flink-runtime-1.19.0", "flink-core-1.18")
  )
  jar = write_jar(tmp_path / "thin.jar", libraries=names)
  with pytest.raises(ValueError, match="the jars that it names are not next to it"):
    read_jar(str(jar))
  (tmp_path / "lib").mkdir()
  (tmp_path / names[1]).write_bytes(b"")
  assert read_jar(str(jar), _FLINK) == "1.19"


def test_a_jar_of_something_else(tmp_path):
  jar = write_jar(tmp_path / "other.jar", main_class="org.other.Main")
  assert read_jar(str(jar)) == ""
  with pytest.raises(ValueError, match=r"its main class is org\.other\.Main"):
    read_jar(str(jar), "org.apache.beam.")


def test_no_jar(tmp_path):
  (tmp_path / "page.jar").write_text("<html>404</html>")
  with pytest.raises(ValueError, match="not a zip file"):
    read_jar(str(tmp_path / "page.jar"))
  with zipfile.ZipFile(tmp_path / "images.zip", "w") as images:
    images.writestr("a.jpg", b"")
  with pytest.raises(ValueError, match=r"META-INF/MANIFEST\.MF"):
    read_jar(str(tmp_path / "images.zip"))
  with pytest.raises(FileNotFoundError):
    read_jar(str(tmp_path / "none.jar"))
