"""No flag is swallowed, none is guessed, and Beam's are let through."""

from __future__ import annotations

import functools

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from beam_retrain.pipelines.convert import ConvertRequest
from beam_retrain.pipelines.options.engine import beam_parser
from beam_retrain.pipelines.options.request import beam_flags, parse_job
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.argparse_internals import flags_of
from beam_retrain.transforms.core.run.flags import ArgumentParser, add_option, max_bad_option, parse_flags

_parse = functools.partial(parse_job, check_engine=False)


def _parser() -> ArgumentParser:
  parser = ArgumentParser(prog="beam-retrain convert")
  parser.add_argument("--input", required=True)
  parser.add_argument("--formats", default="jpg")
  parser.add_argument("--shards", type=int)
  add_option(parser, "max_bad_fraction", max_bad_option())
  return parser


def test_our_flags_and_beam_s_are_told_apart():
  ours, beam = _parse(
    _parser(),
    ["--runner=FnApiRunner", "--input", "a", "--direct_num_workers", "2", "--formats=png", "--experiments=x"],
  )
  assert (ours.input, ours.formats, ours.max_bad_fraction) == ("a", "png", 0.0)
  assert beam.view_as(StandardOptions).runner == "FnApiRunner"
  assert beam.view_as(DirectOptions).direct_num_workers == 2


def test_without_beam_flags_nothing_is_taken_from_the_process_s_own(monkeypatch):
  monkeypatch.setattr("sys.argv", ["pytest", "--runner=DataflowRunner"])
  _, beam = _parse(_parser(), ["--input=a"])
  assert beam.view_as(StandardOptions).runner is None


def test_the_flags_that_are_read_from_beam_s_source_are_those_that_it_has():
  others = {*beam_flags()} - {*flags_of(beam_parser("beam-retrain convert"))}
  assert others <= {"--abc", "--xyz", "--vp_arg1", "--vp_arg2", "--non_vp_arg"}  # of its docstrings
  assert {*flags_of(beam_parser("beam-retrain convert"))} <= {*beam_flags()}
  with pytest.raises(InputError, match="--xyz: neither this command nor Beam has this flag"):
    _parse(_parser(), ["--input=a", "--xyz=1"])


@pytest.mark.parametrize(
  ("flag", "nearest"),
  [
    ("--formts=png", "--formats"),  # ours
    ("--max_bad_fracton=1", "--max_bad_fraction"),
    ("--runer=FnApiRunner", "--runner"),  # Beam's
    ("--direct_num_worker=2", "--direct_num_workers"),
    ("--form=png", "--formats"),  # abbreviations are not taken
    ("--sha=2", "--shards"),  # the beginning of ours
  ],
)
def test_an_unknown_flag_is_an_error_that_names_the_nearest(flag, nearest):
  with pytest.raises(InputError) as raised:
    _parse(_parser(), ["--input=a", flag])
  said = str(raised.value)
  assert said.startswith(f"beam-retrain convert: {flag.split('=')[0]}: neither")
  assert said.endswith(f"nearest flag is {nearest}.")


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["--formats=png"], "required: --input"),
    (["--input"], "expected one argument"),
    (["--input=a", "--shards=many"], "invalid int value: 'many'"),
    (["--input=a", "stray"], "'stray' is not expected here; see"),
    (["--input=a", "/"], "'/' is not expected here; give it as --input /, or see"),
    (["--input=a", "--direct_num_workers=many"], "invalid int value: 'many'"),
    (["--input=a", "--max_bad_fraction=1.5"], "1.5 is not between 0 and 1"),
    (["--input=a", "--max_bad_fraction=nan"], "nan is not between 0 and 1"),
    (["--input=a", "--max_bad_fraction=few"], "few is not between 0 and 1 (0.01 is one in a hundred)"),
    (["--input=a", "--runner=Nope"], "--runner Nope: Unexpected pipeline runner: Nope"),
  ],
)
def test_wrong_usage_is_one_sentence_that_names_the_command(arguments, said, capsys):
  with pytest.raises(InputError) as raised:
    _parse(_parser(), arguments)
  assert said in str(raised.value)
  assert str(raised.value).startswith("beam-retrain convert: ")
  assert not str(raised.value).endswith("..")
  assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
  "flags",
  [
    ["--runner=FlinkRunner", "--number_of_execution_retries", "3", "--object_reuse", "--parallelism=2"],
    ["--runner=sparkrunner", "--storage_level=MEMORY_AND_DISK", "--spark_master_url=local[2]"],
    ["--runner=PortableRunner", "--job_endpoint=localhost:8099", "--storage_level=MEMORY_AND_DISK"],
  ],
  ids=lambda flags: flags[0],
)
def test_an_option_of_the_job_server_goes_to_it_as_it_is(flags):
  _, beam = _parse(_parser(), ["--input=a", *flags])
  # What Beam keeps for the job server, to which it gives all that the server says it has.
  assert beam._flags == flags


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--runner=FlinkRunner", "--number_of_execution_retrys=3"], "flag is --number_of_execution_retries."),
    (
      ["--runner=FlinkRunner", "--storage_level=DISK"],
      "--storage_level is an option of Spark",
    ),
    (["--object_reuse"], "--object_reuse is an option of FlinkRunner, not of FnApiRunner: leave it out."),
    (["--runner=FlinkRunner", "--object_reuse=yes"], "ignored explicit argument 'yes'"),
  ],
  ids=str,
)
def test_an_option_that_the_job_server_would_drop_is_refused(flags, said):
  with pytest.raises(InputError) as raised:
    _parse(_parser(), ["--input=a", *flags])
  assert said in str(raised.value)


def test_help_is_printed_and_leaves_with_0(capsys):
  with pytest.raises(SystemExit) as left:
    _parser().parse_args(["--help"])
  assert left.value.code == 0
  assert "--max_bad_fraction F" in capsys.readouterr().out


def test_a_command_without_a_beam_job_takes_no_beam_flags():
  assert parse_flags(_parser(), ["--input=a"]).input == "a"
  with pytest.raises(InputError, match="--runner: unknown flag; see `beam-retrain convert --help`"):
    parse_flags(_parser(), ["--input=a", "--runner=FnApiRunner"])


def test_what_is_not_ours_is_for_beam():
  argv = ["--input=a", "--output=b", "--formats=png", "--runner=FnApiRunner", "--direct_num_workers", "2"]
  request = ConvertRequest.parse(argv)
  assert request == ConvertRequest(
    input="a", output="b", formats=("png",), beam_options=("--runner=FnApiRunner", "--direct_num_workers", "2")
  )
  assert request.to_argv() == argv
  assert request.pipeline_options().view_as(StandardOptions).runner == "FnApiRunner"


def test_options_of_a_request_made_in_code_are_checked():
  request = ConvertRequest(input="a", output="b", beam_options=("--runner=Tractor",))
  with pytest.raises(InputError, match="beam-retrain convert: --runner Tractor"):
    request.pipeline_options()
