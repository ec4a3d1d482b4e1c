"""What can be seen of an engine before anything is sent to it: Java, the job server's jar, the master, the workers'
environment. A long job is not prepared for an engine that cannot be had."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlparse

from apache_beam.options.pipeline_options import (
  FlinkRunnerOptions,
  JobServerOptions,
  PipelineOptions,
  PortableOptions,
  PrismRunnerOptions,
  SparkRunnerOptions,
)

from beam_retrain.pipelines.engines.environment import (
  FLINK,
  PORTABLE,
  PRISM,
  SPARK,
  is_embedded,
  look_at_environment,
  runner_of,
)
from beam_retrain.pipelines.engines.findings import Finding, Severity, problem
from beam_retrain.pipelines.engines.job_server import flink_line, read_job_server
from beam_retrain.transforms.core.errors import InputError

_SECS = 5.0
# Neither Beam nor Flink goes through a proxy to a cluster.
_STRAIGHT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def refuse_engine(prog: str, options: PipelineOptions) -> None:
  """Checks that the engine of a command line can be had, as far as can be seen from here.

  Raises:
    InputError: it cannot.
  """
  for finding in look_at_engine(options):
    if finding.severity == Severity.PROBLEM:
      raise InputError(f"{prog}: {finding.sentence}")


def look_at_engine(options: PipelineOptions) -> Iterator[Finding]:
  """Yields what is wrong, or doubtful, with the engine that is chosen. Takes some seconds where nobody answers."""
  runner = runner_of(options)
  endpoint = options.view_as(PortableOptions).job_endpoint
  if runner == PRISM:
    yield from _look_at_prism(options)
  if runner not in (FLINK, SPARK, PORTABLE):
    return
  if endpoint:
    yield from [] if endpoint == "embed" else _look_at_address("--job_endpoint", endpoint, "start the job server")
  elif runner == FLINK:
    yield from _look_at_flink(options)
  elif runner == SPARK:
    yield from _look_at_spark(options)
  else:
    yield problem("--runner=PortableRunner", "it needs a job server", "give its HOST:PORT with --job_endpoint")
  yield from look_at_environment(options)


def _look_at_flink(options: PipelineOptions) -> Iterator[Finding]:
  flink = options.view_as(FlinkRunnerOptions)
  uber = flink.flink_submit_uber_jar and not is_embedded(options)
  if not uber:
    yield from _look_at_java(options)
  line = "" if uber else flink_line(flink.flink_version)
  if flink.flink_job_server_jar:
    flag = f"--flink_job_server_jar={flink.flink_job_server_jar}"
    line, wrong = _look_at_jar(flag, flink.flink_job_server_jar, "" if uber else "org.apache.beam.runners.flink.")
    yield from wrong
  elif not uber:
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer

    yield from _look_for_jar(options, FlinkJarJobServer(options).path_to_jar(), "--flink_job_server_jar")
  if not is_embedded(options):
    yield from _look_at_flink_master(flink.flink_master.strip(), line, bool(flink.flink_job_server_jar))


def _look_at_flink_master(master: str, line: str, has_jar: bool) -> Iterator[Finding]:
  """`line`: of the job server; empty: not known."""
  thing = f"--flink_master={master}"
  url = master if re.match("https?://", master) else f"http://{master}"
  remedy = "start the cluster, or give HOST:PORT of the JobManager's REST interface, whose port is 8081 as a rule"
  try:
    with _STRAIGHT.open(f"{url.rstrip('/')}/config", timeout=_SECS) as answer:
      cluster = flink_line(str(json.load(answer)["flink-version"]))
  except urllib.error.HTTPError as error:
    if error.code not in (401, 403):  # there, and not for everybody to see
      yield problem(thing, f"who answers there is no JobManager of Flink (HTTP {error.code})", remedy)
  except (ValueError, KeyError, TypeError, http.client.HTTPException):
    yield problem(thing, "who answers there is no JobManager of Flink", remedy)
  except OSError as error:
    reason = getattr(error, "reason", error)
    if not isinstance(reason, ssl.SSLError):  # Java trusts others than Python does
      yield problem(thing, f"nobody answers there ({_said(reason)})", remedy)
  else:
    if line and cluster != line:
      cause = f"the cluster is Flink {cluster}, and the job server is of {line}"
      remedy = "give the job server of the cluster's line with --flink_job_server_jar"
      yield problem(thing, cause, remedy if has_jar else f"add --flink_version={cluster}")


def _look_at_spark(options: PipelineOptions) -> Iterator[Finding]:
  spark = options.view_as(SparkRunnerOptions)
  if spark.spark_submit_uber_jar:
    if not spark.spark_rest_url:
      yield problem("--spark_submit_uber_jar", "it needs the master's REST interface", "give it with --spark_rest_url")
      return
    address = urlparse(spark.spark_rest_url).netloc
    yield from _look_at_address("--spark_rest_url", address, "start the cluster, or give http://HOST:PORT")
    return
  yield from _look_at_java(options)
  if spark.spark_job_server_jar:
    flag = f"--spark_job_server_jar={spark.spark_job_server_jar}"
    yield from _look_at_jar(flag, spark.spark_job_server_jar, "org.apache.beam.runners.spark.")[1]
  else:
    from apache_beam.runners.portability.spark_runner import SparkJarJobServer

    yield from _look_for_jar(options, SparkJarJobServer(options).path_to_jar(), "--spark_job_server_jar")
  master = spark.spark_master_url
  if master.startswith("spark://"):
    masters = master.removeprefix("spark://").split(",")
    missing = [
      finding
      for one in masters
      for finding in _look_at_address("--spark_master_url", one, "start the cluster, or give spark://HOST:PORT")
    ]
    if len(missing) == len(masters):  # others stand by
      yield missing[0]
  elif not is_embedded(options) and not re.match("yarn|k8s://|local-cluster", master):
    yield problem(f"--spark_master_url={master}", "it is no master", "give spark://HOST:PORT, or local[2]")


def _look_at_java(options: PipelineOptions) -> Iterator[Finding]:
  java = options.view_as(JobServerOptions).job_server_java_launcher
  if shutil.which(java) is None:
    remedy = "install Java 17, or give its path with --job_server_java_launcher"
    yield problem("Java", f"the job server needs it, and {java} is not there", remedy)


def _look_at_jar(flag: str, path: str, main_class: str) -> tuple[str, list[Finding]]:
  """Returns the line of Flink that a jar is of, empty where that is not to be seen, and what is wrong with the jar.

  Args:
    flag: as the user gave it.
    path: local, or a URL, which is not looked at.
    main_class: how its name has to start.
  """
  if urlparse(path).scheme:
    return "", []
  remedy = "give the path of Beam's job server for this engine, as `make engines` or Maven brings it"
  try:
    jar = read_job_server(path)
  except OSError as error:
    return "", [problem(flag, f"it cannot be read ({_said(error)})", remedy)]
  except ValueError as error:
    return "", [problem(flag, f"it is no jar, or damaged ({error})", remedy)]
  if not jar.main_class.startswith(main_class):
    is_what = f"its main class is {jar.main_class}" if jar.main_class else "it has no main class"
    return "", [problem(flag, f"it is no job server of this engine ({is_what})", remedy)]
  if not jar.is_whole:
    remedy = "give it where it was made, it cannot be moved alone"
    return "", [problem(flag, "the jars that it names are not beside it", remedy)]
  return jar.flink_line, []


def _look_for_jar(options: PipelineOptions, source: str, flag: str) -> Iterator[Finding]:
  """Looks whether the job server that Beam would take by itself can be had; `source`: a path or a URL."""
  from apache_beam.utils.subprocess_server import JavaJarServer

  name = os.path.basename(source)
  folder = options.view_as(JobServerOptions).jar_cache_dir or JavaJarServer.JAR_CACHE
  if os.path.exists(source) or os.path.exists(os.path.join(folder, name)):
    return
  said = ""
  for repository in (JavaJarServer.MAVEN_CENTRAL_REPOSITORY, JavaJarServer.GOOGLE_MAVEN_MIRROR):
    url = source.replace(JavaJarServer.MAVEN_CENTRAL_REPOSITORY, repository)
    try:
      urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECS).close()
      return
    except OSError as error:
      said = said or _said(getattr(error, "reason", error))
  cause = f"{name} is neither in {folder} nor to be had from Maven Central ({said})"
  yield problem("job server", cause, f"fetch it elsewhere, put it there, or give its path with {flag}")


def _look_at_prism(options: PipelineOptions) -> Iterator[Finding]:
  path = options.view_as(PrismRunnerOptions).prism_location
  if path and not urlparse(path).scheme and not os.path.exists(path):
    yield problem(f"--prism_location={path}", "it is not there", "give the path of prism, as `make engines` builds it")


def _look_at_address(flag: str, address: str, remedy: str) -> Iterator[Finding]:
  host, _, port = address.rpartition(":")
  thing = f"{flag}={address}"
  if not (host and port.isdecimal()):
    yield problem(thing, "it is no HOST:PORT", remedy)
    return
  try:
    socket.create_connection((host.strip("[]"), int(port)), _SECS).close()
  except (OSError, OverflowError) as error:
    yield problem(thing, f"nobody answers there ({_said(error)})", remedy)


def _said(error: Any) -> str:
  return str(getattr(error, "strerror", None) or error)
