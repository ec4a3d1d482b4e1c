"""A history of nights in a bucket: a night is there, whole, once its small object is."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from beam_retrain.pipelines.reevaluate import baseline as baselines
from beam_retrain.pipelines.reevaluate import bucket, history
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.transfer import put_file
from tests.object_stores import Server, gs, s3
from tests.pipelines.reevaluate.history_suite import FINGERPRINT, REQUEST, fill_night
from tests.system.engine_suite import needs_engines

__all__ = ["gs", "s3"]  # fixtures

pytestmark = needs_engines
_OTHER = "a" * 64


@pytest.fixture(params=["s3", "gs"])
def nights(request: pytest.FixtureRequest, tmp_path: Path) -> str:
  server: Server = request.getfixturevalue(request.param)
  server.use()
  return f"{server.url}/{tmp_path.name}/history"


def _work(working: str, tmp_path: Path, date: str) -> None:
  made = tmp_path / "made" / date
  fill_night(made, date)
  for path in filter(Path.is_file, made.rglob("*")):
    put_file(str(path), f"{working}/{path.relative_to(made).as_posix()}")


def _publish(nights: str, tmp_path: Path, date: str, request: str = REQUEST) -> str:
  with history.tonight(nights, date, request) as working:
    _work(working, tmp_path, date)
    return history.publish(working, nights, date)


def _read(nights: str) -> list[str]:
  return [night.night for night in history.read_nights(nights)]


def test_a_night_is_there_once_its_object_is(nights, tmp_path):
  assert _read(nights) == []
  with history.tonight(nights, "2026-11-23", REQUEST) as working:
    _work(working, tmp_path, "2026-11-23")
    assert _read(nights) == []
    assert history.publish(working, nights, "2026-11-23") == f"{nights}/nights/2026-11-23-{REQUEST[:12]}"
  _publish(nights, tmp_path, "2026-11-22")
  assert _read(nights) == history.dates(nights) == ["2026-11-22", "2026-11-23"]
  assert not files.exists(f"{working}/.lock")
  chosen = baselines.choose_baseline(nights, "2026-11-24", None, ["7", "1"])
  assert (chosen.name, chosen.predictions) == ("2026-11-23", f"{working}/predictions.csv")
  with pytest.raises(InputError, match=f"{nights} has no such night: give one of 2026-11-22, 2026-11-23, the output"):
    baselines.choose_baseline(nights, "2026-11-24", "2026-11-21", ["7", "1"])


def test_a_rerun_replaces_a_night_and_deletes_what_it_was(nights, tmp_path):
  first = _publish(nights, tmp_path, "2026-11-23")
  with history.tonight(nights, "2026-11-23", REQUEST) as working:
    assert working == f"{first}-again"
    assert history.earlier_stores(nights, "2026-11-23", FINGERPRINT, working) == [f"{first}/bottlenecks/0123456789ab"]
    _work(working, tmp_path, "2026-11-23")
    assert history.night_folder(nights, "2026-11-23") == first  # until it is published
    history.publish(working, nights, "2026-11-23")
  assert history.night_folder(nights, "2026-11-23") == f"{first}-again"
  assert not list(files.list_tree(first))
  assert _publish(nights, tmp_path, "2026-11-23") == first
  assert _publish(nights, tmp_path, "2026-11-23", _OTHER) == f"{nights}/nights/2026-11-23-{_OTHER[:12]}"
  assert bucket.works(nights) == []


def test_killed_work_is_resumed_and_one_command_works_on_it_at_a_time(nights, tmp_path):
  with pytest.raises(RuntimeError), history.tonight(nights, "2026-11-23", REQUEST) as killed:  # noqa: PT012
    _work(killed, tmp_path, "2026-11-23")
    raise RuntimeError
  assert _read(nights) == []
  with history.tonight(nights, "2026-11-23", REQUEST) as working:
    assert working == killed
    with (
      pytest.raises(InputError, match="is being written by another command"),
      history.tonight(nights, "2026-11-23", REQUEST),
    ):
      pass


def test_stores_are_pruned_but_not_while_another_night_is_in_progress(nights, tmp_path):
  dates = ["2026-11-21", "2026-11-22", "2026-11-23"]
  for date in dates:
    _publish(nights, tmp_path, date)
  with history.tonight(nights, "2026-11-24", REQUEST) as working:
    _work(working, tmp_path, "2026-11-24")
    with history.tonight(nights, "2026-11-25", REQUEST):
      history.prune_stores(nights, 1, "2026-11-24")
    history.publish(working, nights, "2026-11-24")
    assert all(history.earlier_stores(nights, date, FINGERPRINT) for date in dates)
    history.prune_stores(nights, 2, "2026-11-24")
  folders = {date: f"{history.night_folder(nights, date)}/bottlenecks" for date in history.dates(nights)}
  stored = [date for date, folder in folders.items() if list(files.list_tree(folder))]
  assert stored == ["2026-11-23", "2026-11-24"]


def test_what_is_no_night_is_refused_or_left_out(nights, tmp_path):
  files.write_text(f"{nights}/photo.jpg", "")
  with pytest.raises(InputError, match=r"history contains 'photo\.jpg' but no nights of reevaluate"):
    history.read_nights(nights)
  files.delete([f"{nights}/photo.jpg"])
  _publish(nights, tmp_path, "2026-11-22")
  for text in ("{", "[]", json.dumps({"folder": 7}), json.dumps({"folder": "../2026-11-23-0123456789ab"})):
    files.write_text(f"{nights}/2026-11-23.json", text)
    assert _read(nights) == ["2026-11-22"]
    with pytest.raises(InputError, match=r"2026-11-23\.json was not written by `beam-retrain reevaluate`, or is"):
      _publish(nights, tmp_path, "2026-11-23")


def test_of_two_that_publish_at_once_one_says_so(nights, tmp_path, monkeypatch):
  store = files.HTTP_STORES[nights.partition("://")[0]]
  seen = threading.Event()
  _publish(nights, tmp_path, "2026-11-23")
  read_version = store.read_version

  def read_then_another_writes(path: str) -> tuple[bytes, str] | None:
    found = read_version(path)
    if path.endswith("2026-11-23.json") and not seen.is_set():
      seen.set()
      files.write_text(path, json.dumps({"folder": f"2026-11-23-{_OTHER[:12]}"}))
    return found

  monkeypatch.setattr(store, "read_version", read_then_another_writes)
  with pytest.raises(InputError, match=r"another command published the night 2026-11-23 in .* at the same time"):
    _publish(nights, tmp_path, "2026-11-23")
