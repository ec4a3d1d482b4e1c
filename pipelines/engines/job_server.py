"""What a job server's jar says of itself: whose it is, and of which line of Flink."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import zipfile
from pathlib import Path

_MANIFEST = "META-INF/MANIFEST.MF"
_FLINK_VERSION = ".flink-runtime.version.properties"


@dataclasses.dataclass(frozen=True)
class JobServerJar:
  """Attributes:
  main_class: what `java -jar` starts; empty: nothing.
  flink_line: for example `1.19`; empty where it is not to be seen.
  is_whole: False where the jar is a list of other jars, and none of them is there.
  """

  main_class: str
  flink_line: str
  is_whole: bool


def read_job_server(path: str) -> JobServerJar:
  """Looks into a jar.

  Raises:
    ValueError: it is no jar, or damaged.
    OSError: it cannot be read.
  """
  try:
    with zipfile.ZipFile(path) as jar:
      # A line of more than 72 bytes goes on in the next one, after a blank.
      manifest = re.sub(r"\r?\n ", "", jar.read(_MANIFEST).decode())
      version = ""
      with contextlib.suppress(KeyError):
        version = _entry(jar.read(_FLINK_VERSION).decode(), "project.version=")
  except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
    raise ValueError(str(error).strip("'\"")) from error
  libraries = _entry(manifest, "Class-Path:").split()
  folder = Path(path).parent
  if not version:
    named = (re.match(r"flink-runtime-([\d.]+)\.jar$", Path(library).name) for library in libraries)
    version = next((found[1] for found in named if found), "")
  return JobServerJar(
    main_class=_entry(manifest, "Main-Class:"),
    flink_line=flink_line(version),
    is_whole=not libraries or any((folder / library).exists() for library in libraries),
  )


def flink_line(version: str) -> str:
  """Returns the line of a version of Flink, `1.19` for `1.19.3`; jobs are understood within a line only."""
  return ".".join(version.split(".")[:2])


def _entry(text: str, name: str) -> str:
  for line in text.splitlines():
    if line.startswith(name):
      return line.removeprefix(name).strip()
  return ""
