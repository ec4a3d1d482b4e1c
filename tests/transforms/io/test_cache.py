"""What is in the cache is found again, made anew where it is damaged, and safe with several at work."""

import errno
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beam_retrain.pipelines.models.trunk_sources import load_trunk
from beam_retrain.transforms.io import cache as trunk_cache
from beam_retrain.transforms.io import files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path / "cache"))
  return tmp_path / "cache"


def write(folder: str) -> None:
  for name in ("a", "sub/b"):
    path = Path(folder) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)


def refuse(folder: str) -> None:
  raise AssertionError("made again")


def contents(folder: str) -> dict[str, str]:
  return {
    str(path.relative_to(folder)): path.read_text()
    for path in sorted(Path(folder).rglob("*"))
    if path.is_file() and path.name != "cache.json"
  }


def test_found_again_and_copied_without_its_sums(cache, tmp_path):
  entry = trunk_cache.get_or_create("trunks/x/one", write)
  assert entry == str(cache / "trunks" / "x" / "one")
  assert trunk_cache.get_or_create("trunks/x/one", refuse) == entry
  trunk_cache.copy_entry(entry, str(tmp_path / "copy"))
  assert sorted(os.listdir(tmp_path / "copy")) == ["a", "sub"]


def test_a_copy_takes_no_room_and_has_its_own_life(tmp_path):
  entry = Path(trunk_cache.get_or_create("trunks/x/one", write))
  trunk_cache.copy_entry(str(entry), str(tmp_path / "one"))
  trunk_cache.copy_entry(str(tmp_path / "one"), str(tmp_path / "two"))
  one, two = tmp_path / "one" / "a", tmp_path / "two" / "a"
  assert (entry / "a").samefile(one)
  assert one.samefile(two)
  files.write_bytes(str(one), b"written anew")  # as every writer of ours
  assert (two.read_text(), (entry / "a").read_text()) == ("a", "a")
  shutil.rmtree(tmp_path / "one")
  trunk_cache.remove(trunk_cache.Entry("trunks/x/one", 0, 0.0))
  assert two.read_text() == "a"


def test_what_cannot_be_linked_is_copied(tmp_path, monkeypatch):
  entry = Path(trunk_cache.get_or_create("trunks/x/one", write))
  (entry / "a").chmod(0o600)  # another user's umask: others could not read the output
  trunk_cache.copy_entry(str(entry), str(tmp_path / "copy"))
  assert not (entry / "a").samefile(tmp_path / "copy" / "a")
  assert (tmp_path / "copy" / "sub" / "b").samefile(entry / "sub" / "b")
  with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:  # another file system
    trunk_cache.copy_entry(str(entry), f"{elsewhere}/copy")
    assert contents(f"{elsewhere}/copy") == contents(str(entry))


@pytest.mark.parametrize("damage", ["a", "sub/b", "cache.json"])
def test_a_damaged_entry_is_made_anew(damage):
  entry = trunk_cache.get_or_create("one", write)
  (Path(entry) / damage).write_text("{")
  assert trunk_cache.find("one") == ""
  assert contents(trunk_cache.get_or_create("one", write)) == {"a": "a", "sub/b": "sub/b"}
  assert trunk_cache.find("one") == entry


def test_whoever_fails_leaves_nothing(cache):
  with pytest.raises(AssertionError):
    trunk_cache.get_or_create("trunks/one", refuse)
  assert os.listdir(cache / "trunks") == []


def test_what_killed_processes_left_goes_a_day_later(cache):
  def leave(name: str, hours: float) -> None:
    (cache / "trunks" / name / "entry").mkdir(parents=True)
    (cache / "trunks" / name / "entry" / "graph.pb").touch()
    then = time.time() - hours * 3600
    os.utime(cache / "trunks" / name, (then, then))

  for name, hours in (("x/.making-old", 25), ("y/.damaged-old", 25), ("y/.making-new", 23), ("y/an_entry", 25)):
    leave(name, hours)
  with ThreadPoolExecutor(8) as pool:  # in each other's way
    list(pool.map(lambda number: trunk_cache.get_or_create(f"trunks/z/{number}", write), range(8)))
  assert os.listdir(cache / "trunks" / "x") == []
  assert sorted(os.listdir(cache / "trunks" / "y")) == [".making-new", "an_entry"]
  leave("x/.making-old", 25)
  trunk_cache.get_or_create("trunks/z/1", refuse)  # nothing is looked for where nothing is made
  assert os.listdir(cache / "trunks" / "x") == [".making-old"]


@pytest.mark.parametrize("is_damaged", [False, True], ids=["new", "damaged"])
def test_several_at_once_all_get_a_whole_one(cache, is_damaged):
  if is_damaged:
    (Path(trunk_cache.get_or_create("trunks/one", write)) / "a").write_text("other")
  with ThreadPoolExecutor(8) as pool:
    entries = list(pool.map(lambda _: contents(trunk_cache.get_or_create("trunks/one", write)), range(16)))
  assert entries == [{"a": "a", "sub/b": "sub/b"}] * 16
  assert os.listdir(cache / "trunks") == ["one"]


def test_where_nothing_can_be_written_it_lasts_for_the_process(tmp_path, monkeypatch, capsys):
  (tmp_path / "file").write_text("in the way")
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path / "file"))
  entry = trunk_cache.get_or_create("one", write)
  assert trunk_cache.get_or_create("one", refuse) == entry
  told = capsys.readouterr().err
  assert told.count("so the next run prepares its trunk again") == 1
  assert "BEAM_RETRAIN_CACHE_DIR" in told
  shutil.rmtree(trunk_cache.folder())


def test_where_there_is_no_room_it_lasts_for_the_process(cache, capsys):
  def write_where_there_is_room(folder: str) -> None:
    if folder.startswith(str(cache)):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write(folder)

  entries = [trunk_cache.get_or_create("trunks/one", write_where_there_is_room) for _ in range(2)]
  assert contents(entries[0]) == {"a": "a", "sub/b": "sub/b"}
  assert entries[0] == entries[1]
  assert os.listdir(cache / "trunks") == []
  assert capsys.readouterr().err.count("No space left") == 1
  shutil.rmtree(entries[0])


def test_what_cannot_be_kept_of_a_source_is_no_fault(cache):
  cache.mkdir()
  (cache / "sources").write_text("in the way")
  trunk_cache.write_source("x", {"a": 1})
  assert trunk_cache.read_source("x") is None


def test_others_may_read_what_is_kept_and_copied(tmp_path):
  entry = trunk_cache.get_or_create("one", write)
  os.chmod(entry, 0o500)
  trunk_cache.copy_entry(entry, str(tmp_path / "copy"))
  trunk_cache.write_source("x", {})
  folder = tmp_path / "as usual"
  folder.mkdir()
  (folder / "file").touch()
  usual = [path.stat().st_mode for path in (folder, folder / "file")]
  assert [path.stat().st_mode for path in (tmp_path / "copy", tmp_path / "copy" / "a")] == usual
  again = trunk_cache.get_or_create("two", write)
  kept = Path(trunk_cache.folder(), "sources", "x.json")
  assert [path.stat().st_mode for path in (Path(again), kept)] == usual


def test_without_a_home_nothing_is_written_where_one_stands(tmp_path, monkeypatch):
  monkeypatch.delenv("BEAM_RETRAIN_CACHE_DIR")
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as of a user whom the system does not know
  monkeypatch.chdir(tmp_path)
  assert os.path.isabs(trunk_cache.folder())
  assert os.listdir(tmp_path) == []


def test_where_it_is(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
  assert trunk_cache.folder() == str(tmp_path / "cache")
  monkeypatch.delenv("BEAM_RETRAIN_CACHE_DIR")
  assert trunk_cache.folder() == str(tmp_path / "xdg" / "beam-retrain")
  monkeypatch.delenv("XDG_CACHE_HOME")
  assert trunk_cache.folder() == str(tmp_path / "home" / ".cache" / "beam-retrain")


def test_a_known_trunk_is_not_loaded_again_unless_it_is_damaged(monkeypatch):
  first = load_trunk("bundled")
  with monkeypatch.context() as patched:
    patched.setattr("beam_retrain.pipelines.models.trunk_sources._load_bundled", lambda content: refuse(""))
    again = load_trunk("bundled")
  assert again.info == first.info
  assert again.frozen is None
  (Path(first.folder) / "saved_model.pb").write_bytes(b"")
  again = load_trunk("bundled")
  assert again.info == first.info
  assert again.frozen is not None
  assert (Path(again.folder) / "saved_model.pb").stat().st_size > 0
