"""What an engine says after its job has ended does not reach the terminal."""

import logging
import sys
import threading

import pytest

from beam_retrain.pipelines.jobs.capture import capture_output
from beam_retrain.transforms.core.run.exit_codes import ExitCode, run_command


def _job_with_a_late_worker(fails: bool) -> None:
  is_over = threading.Event()

  def work() -> None:
    is_over.wait(10)
    print("Traceback of a bundle", file=sys.stderr)
    logging.getLogger("engine").error("job failed")

  worker = threading.Thread(target=work)
  try:
    with capture_output():
      worker.start()
      if fails:
        raise ValueError("three words")
  finally:
    is_over.set()
    worker.join()


@pytest.mark.parametrize("fails", [True, False])
def test_late_output_of_workers_is_dropped_and_ours_is_not(fails, capsys, monkeypatch):
  monkeypatch.setattr(logging.getLogger(), "handlers", [])

  def run(_) -> int:
    _job_with_a_late_worker(fails)
    print("beam-retrain: a word of ours", file=sys.stderr)
    logging.warning("a warning of ours")
    return ExitCode.DONE

  code = run_command(run, [])
  shown = capsys.readouterr().err
  if fails:
    assert (code, shown.startswith("beam-retrain: the job failed: ValueError: three words (see ")) == (2, True)
    assert shown.count("\n") == 1
  else:
    assert (code, shown) == (0, "beam-retrain: a word of ours\na warning of ours\n")
