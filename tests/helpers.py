"""What tests of every room share: images, folders of files, and the checkout's commands in processes of their own."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""


def noise_image(seed: int, kind: str = "PNG", size: tuple[int, int] = (12, 9), mode: str = "RGB") -> bytes:
  """Returns an encoded image of seeded noise; `size` is (height, width) in pixels."""
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
  return encode(pixels, kind, mode)


def encode(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
  """Encodes uint8 [H, W] or [H, W, 3] with Pillow, in a mode of Pillow's."""
  file = io.BytesIO()
  found = Pillow.fromarray(pixels)
  (found.convert(mode) if mode else found).save(file, kind)
  return file.getvalue()


def bomb(width: int, height: int) -> bytes:
  """Returns a PNG of a few bytes whose header claims a huge image (PNG specification, 5.3 and 11.2.2)."""

  def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write(root: Path, files: Mapping[str, bytes]) -> Path:
  """Writes files by their paths below a folder, and returns the folder."""
  for name, data in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return root


def file_contents(folder: Path) -> dict[str, bytes]:
  """Returns what all files below a folder hold, by their paths in it."""
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_in_terminal(argv: Sequence[str], columns: int = 80, **env: str) -> str:
  """Returns what a command shows on a terminal of its own, which it has for all three streams."""
  ours, theirs = pty.openpty()
  fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
  shown = b""
  process = subprocess.Popen(
    argv, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm-256color", **env}
  )
  with process:
    os.close(theirs)
    with contextlib.suppress(OSError):  # Linux's end of a terminal
      while part := os.read(ours, 65536):
        shown += part
  os.close(ours)
  return shown.decode()


def read_json(path: Path) -> dict[str, Any]:
  found: dict[str, Any] = json.loads(path.read_text())
  return found


def without_entry(path: Path, name: str) -> None:
  """Removes an entry of a JSON file, if it is there."""
  values = read_json(path)
  values.pop(name, None)
  path.write_text(json.dumps(values))


def without_list(folder: Path) -> Path:
  """Makes a finished folder one of 0.4, without a list of its files."""
  (folder / "COMPLETED").write_bytes(b"")
  without_entry(folder / "info.json", "lists_files")
  return folder


def read_csv(path: Path) -> list[list[str]]:
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.reader(file))


def python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
  """Runs this Python in the checkout and captures what it prints; a failure is an error unless `check=False`."""
  options = {"cwd": ROOT, "capture_output": True, "text": True, "check": True, **options}
  done: subprocess.CompletedProcess[str] = subprocess.run([sys.executable, *arguments], **options)
  return done


def wait_until_held(lock: Path, holder: subprocess.Popen[str]) -> None:
  """Waits until a process holds a lock: then it has written its id there."""
  while not lock.exists() or f'"process": {holder.pid}' not in lock.read_text():
    assert holder.poll() is None, holder.communicate()
    time.sleep(0.01)


def forget_list(folder: Path) -> None:
  """Makes a finished output one of 0.4, which listed no files: it may be changed."""
  info = json.loads((folder / "info.json").read_text())
  del info["lists_files"]
  (folder / "info.json").write_text(json.dumps(info))
  (folder / "COMPLETED").write_bytes(b"")
