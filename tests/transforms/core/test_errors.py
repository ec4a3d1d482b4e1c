"""The sentence that a user reads, through every way in which Beam hands a worker's exception back."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.transforms.core.errors import InputError, user_sentence

_SENTENCE = "/data/a: b.jpg has 0 bytes [as listed]: remove it, or accept it with --max_bad_fraction."


def test_a_sentence_is_one_line():
  assert str(InputError("one thing\n   the cause\n\tthe remedy ")) == "one thing the cause the remedy"


def test_other_errors_have_no_sentence():
  assert user_sentence(ValueError("some InputError was here")) is None


def test_an_error_of_our_own_process_keeps_its_sentence():
  assert user_sentence(InputError(_SENTENCE)) == _SENTENCE


def test_the_last_of_several_chained_errors_counts():
  text = (
    "Traceback:\na.InputError: first\n\nDuring handling of the above:\n\na.InputError: second [while running 'X']\n"
  )
  assert user_sentence(RuntimeError(text)) == "second"


class _Refuse(beam.DoFn):
  def process(self, element: int):
    if element == 3:
      raise InputError(_SENTENCE)
    yield element


def test_a_worker_s_sentence_comes_through():
  pipeline = beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"]))
  _ = pipeline | "Create" >> beam.Create(range(5)) | "Spread" >> beam.Reshuffle() | "RefuseOne" >> beam.ParDo(_Refuse())
  with pytest.raises(Exception, match="0 bytes") as raised:
    pipeline.run().wait_until_finish()
  assert user_sentence(raised.value) == _SENTENCE
