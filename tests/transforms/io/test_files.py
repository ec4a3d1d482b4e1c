"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.io import files
from tests.helpers import ROOT


def test_a_file_appears_whole(tmp_path):
  path = str(tmp_path / "a.bin")
  with files.write_atomically(path) as file:
    file.write(b"12")
    file.flush()
    assert not os.path.exists(path)
    file.write(b"3")
  assert files.read_bytes(path) == b"123"
  assert os.listdir(tmp_path) == ["a.bin"]


def test_an_older_file_is_replaced_at_once(tmp_path):
  path = str(tmp_path / "a.txt")
  files.write_text(path, "old, and longer")
  files.write_text(path, "nü")
  assert files.read_bytes(path) == "nü".encode()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_but_what_was_there(tmp_path, error):
  path = str(tmp_path / "a.txt")
  files.write_text(path, "old")
  with pytest.raises(error), files.write_atomically(path) as file:  # noqa: PT012
    file.write(b"half")
    raise error
  assert files.read_bytes(path) == b"old"
  assert os.listdir(tmp_path) == ["a.txt"]


def test_sweep_removes_only_what_a_killed_worker_left(tmp_path):
  kept = ["training-00000-of-00001.tfrecord", "labels.txt", "tmp-mine"]
  for name in [*kept, "training-00000-of-00001.tfrecord.tmp-0a1b"]:
    (tmp_path / name).touch()
  (tmp_path / "deeper").mkdir()
  (tmp_path / "deeper" / "a.tmp-1").touch()
  files.sweep(str(tmp_path))
  assert sorted(os.listdir(tmp_path)) == sorted([*kept, "deeper"])
  assert os.listdir(tmp_path / "deeper") == ["a.tmp-1"]


def test_a_write_that_was_killed_is_swept(tmp_path):
  pid = os.fork()
  if pid == 0:
    with files.write_atomically(str(tmp_path / "a.txt")) as file:
      file.write(b"half")
      os._exit(0)  # as a kill does: no handler runs
  os.waitpid(pid, 0)
  assert len(os.listdir(tmp_path)) == 1
  files.sweep(str(tmp_path))
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("folder", ["plain", "with [brackets] and * ?", "ü"])
def test_match_finds_files_not_folders_sorted(tmp_path, folder):
  root = tmp_path / folder
  (root / "b.folder.txt").mkdir(parents=True)
  (root / "b.folder.txt" / "deep.txt").write_text("deep")
  (root / "c.txt").write_text("abc")
  (root / ".a.txt").write_text("")
  (root / "c.jpg").touch()
  found = files.match_in(str(root), "*.txt")
  assert [(stat.path, stat.size_bytes) for stat in found] == [(str(root / ".a.txt"), 0), (str(root / "c.txt"), 3)]
  assert found[1].modified_secs == (root / "c.txt").stat().st_mtime
  everything = [os.path.relpath(stat.path, root) for stat in files.match_in(str(root), "**")]
  assert everything == [".a.txt", "b.folder.txt/deep.txt", "c.jpg", "c.txt"]


def test_match_without_a_hit_is_empty(tmp_path):
  assert files.match_in(str(tmp_path), "*.txt") == []
  assert files.match_in(str(tmp_path / "not there"), "*") == []


def test_stat_knows_files_only(tmp_path):
  (tmp_path / "a[1].txt").write_text("abc")
  found = files.stat(str(tmp_path / "a[1].txt"))
  assert found is not None
  assert found.size_bytes == 3
  assert files.stat(str(tmp_path)) is None
  assert files.stat(str(tmp_path / "none")) is None


def test_delete_takes_files_whole_folders_and_what_is_not_there(tmp_path):
  (tmp_path / "folder" / "deeper").mkdir(parents=True)
  (tmp_path / "folder" / "deeper" / "a").touch()
  (tmp_path / "b").touch()
  (tmp_path / "stays").touch()
  files.delete(str(tmp_path / name) for name in ("folder", "b", "none"))
  assert os.listdir(tmp_path) == ["stays"]


def test_gzip_files_are_read_as_they_are(tmp_path):
  (tmp_path / "a.gz").write_bytes(b"\x1f\x8b not really")
  assert files.read_bytes(str(tmp_path / "a.gz")) == b"\x1f\x8b not really"


def test_is_empty_sees_whatever_lies_there(tmp_path):
  assert files.is_empty(str(tmp_path))
  assert files.is_empty(str(tmp_path / "not there"))
  (tmp_path / "a" / "b" / "c").mkdir(parents=True)
  (tmp_path / "a" / "b" / "c" / "deep.jpg").touch()
  assert not files.is_empty(str(tmp_path))


def test_remote_paths_are_told_from_local_ones():
  assert files.is_local("/data/a")
  assert files.is_local("data")
  assert not files.is_local("gs://bucket/a")


def test_a_local_path_is_the_same_from_every_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert files.absolute("a/../b") == str(tmp_path / "b")
  assert files.absolute("gs://bucket/b") == "gs://bucket/b"


def test_a_remote_path_is_what_its_objects_names_begin_with():
  assert files.absolute("s3://bucket/a/b/") == "s3://bucket/a/b"
  assert files.absolute("gs://bucket/") == "gs://bucket"
  for path in ("s3://bucket/a/../b", "s3://bucket//b", "gs://bucket/./b", "s3://"):
    with pytest.raises(InputError, match="write it out"):
      files.absolute(path)


@pytest.mark.parametrize(
  ("path", "other", "overlap"),
  [
    ("s3://b/a", "s3://b/a", True),
    ("s3://b/a/x", "s3://b/a", True),
    ("s3://b/a", "s3://b/a/x", True),
    ("s3://b", "s3://b/a", True),
    ("s3://b/a", "s3://b/ab", False),
    ("s3://b/a", "gs://b/a", False),
    ("s3://b/a", "/b/a", False),
    ("/b/a/../c", "/b/c/d", True),
    ("/b/c", "/b/cd", False),
  ],
)
def test_what_overlaps(path, other, overlap):
  assert local_files.overlap(path, other) == local_files.overlap(other, path) == overlap


def test_folders_in_a_folder(tmp_path):
  for name in ("b", "a/deeper", ".hidden"):
    (tmp_path / name).mkdir(parents=True)
  (tmp_path / "file").touch()
  (tmp_path / "link").symlink_to("a")
  assert files.subfolders(str(tmp_path)) == ["a", "b", "link"]
  assert files.subfolders(str(tmp_path / "file")) == files.subfolders(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
  "path", ["s3://bucket", "s3://bucket/", "gs://bucket//", "s3://bucket/a/../b", "s3://bucket/a//b", "s3:///a"]
)
def test_what_names_no_object_is_never_deleted(path):
  with pytest.raises(ValueError, match="refusing to delete"):
    files.delete([path])


def test_a_path_is_shown_whole_at_the_root(monkeypatch):
  monkeypatch.chdir("/")
  assert files.shown("/var/lib/nights") == "/var/lib/nights"


def test_a_path_is_shown_as_it_would_be_typed(tmp_path, monkeypatch):
  (tmp_path / "here").mkdir()
  monkeypatch.chdir(tmp_path / "here")
  assert files.shown(str(tmp_path / "here" / "a" / "b")) == "a/b"
  assert files.shown(str(tmp_path / "there")) == str(tmp_path / "there")
  assert files.shown("gs://bucket/b") == "gs://bucket/b"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 7])
def test_the_checksum_is_that_of_the_whole_file(tmp_path, size):
  (tmp_path / "a.gz").write_bytes(b"ab" * size)  # the name does not make it decompress
  assert files.sha256(str(tmp_path / "a.gz")) == hashlib.sha256(b"ab" * size).hexdigest()


def test_a_folder_that_cannot_be_listed_is_told_and_not_passed_over(tmp_path):
  for name in ("open", ".hidden", "closed"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "7.png").write_bytes(b"7")
  (tmp_path / ".hidden").chmod(0)
  # In a process of its own, which gives up what root may read.
  walk = (
    "import os; from beam_retrain.transforms.io import files\n"
    "from beam_retrain.transforms.core.errors import InputError\n"
    f"os.chdir({str(tmp_path)!r}); os.chmod('.', 0o755); os.geteuid() or os.seteuid(65534)\n"
    "try: print(sorted(files.walk('.')))\nexcept InputError as error: print(error)"
  )

  def walked() -> str:
    return subprocess.run([sys.executable, "-c", walk], cwd=ROOT, capture_output=True, text=True, check=True).stdout

  assert walked() == "['./closed/7.png', './open/7.png']\n"
  (tmp_path / "closed").chmod(0)
  assert walked().startswith("the folder ./closed cannot be listed (Permission denied): ")


def test_a_large_file_is_digested_once_until_it_is_written_to(tmp_path, monkeypatch):
  large, path = bytes(8 << 20), tmp_path / "large"
  path.write_bytes(large)
  os.utime(path, (1, 1))
  first = files.sha256(str(path))
  os.link(path, tmp_path / "linked")
  monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was read again"))
  assert files.sha256(str(tmp_path / "linked")) == first == hashlib.sha256(large).hexdigest()
  monkeypatch.undo()
  for begins in (b"a", b"b"):  # one right after the other
    path.write_bytes(begins + large[1:])
    assert files.sha256(str(path)) == hashlib.sha256(begins + large[1:]).hexdigest()
