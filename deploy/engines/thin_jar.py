"""Makes an empty jar whose manifest names the jars in `lib`.

  python thin_jar.py FOLDER MAIN_CLASS     # FOLDER/lib/*.jar -> FOLDER/job-server.jar

`java -jar` then runs them without a shaded copy. Standard library only: it runs before any environment exists.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

# Packages that Flink and Spark access by reflection, closed by default in Java 17; FlinkRunner passes no flags for it.
# Spark's are those of its JavaModuleOptions. Without sun.security.action, a failing task cannot report: its thread
# ends, and the job waits for ever.
_OPENED = (
  *("java.io", "java.lang", "java.lang.invoke", "java.lang.reflect", "java.net", "java.nio", "java.text", "java.time"),
  *("java.util", "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks"),
  *("jdk.internal.ref", "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar"),
)
_LINE_BYTES = 70  # of 72, less the line's end


def main(folder: Path, main_class: str) -> None:
  """Writes `job-server.jar` into `folder`, next to `lib`."""
  names = sorted(path.name for path in (folder / "lib").glob("*.jar"))
  if not names:
    sys.exit(f"thin_jar.py: {folder / 'lib'} holds no jars.")
  attributes = {
    "Manifest-Version": "1.0",
    "Main-Class": main_class,
    "Add-Opens": " ".join(f"java.base/{package}" for package in _OPENED),
    "Class-Path": " ".join(f"lib/{name}" for name in names),
  }
  with zipfile.ZipFile(folder / "job-server.jar", "w") as jar:
    jar.writestr("META-INF/MANIFEST.MF", "".join(_wrapped(f"{name}: {value}") for name, value in attributes.items()))


def _wrapped(line: str) -> str:
  """Returns a manifest's line, wrapped at its maximum length.

  Continuation lines begin with a space. See "JAR File Specification", "Notes on Manifest and Signature Files".
  """
  pieces = [line[:_LINE_BYTES]]
  rest = line[_LINE_BYTES:]
  while rest:
    pieces.append(f" {rest[: _LINE_BYTES - 1]}")
    rest = rest[_LINE_BYTES - 1 :]
  return "".join(f"{piece}\r\n" for piece in pieces)


if __name__ == "__main__":
  main(Path(sys.argv[1]), sys.argv[2])
