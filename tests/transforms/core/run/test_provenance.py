"""What an output says of the command that made it."""

from beam_retrain.transforms.core.run.provenance import describe_run


def test_secrets_of_the_command_line_are_not_kept():
  argv = [
    *("--input=s3://b/a", "--s3_access_key_id=first", "--s3_secret_access_key", "second", "--s3_session_token=third"),
    *("--output", "s3://b/c"),
  ]
  assert describe_run("convert", {}, argv)["command"] == (
    "beam-retrain convert --input=s3://b/a --s3_access_key_id=... --s3_secret_access_key ... --s3_session_token=..."
    " --output s3://b/c"
  )
