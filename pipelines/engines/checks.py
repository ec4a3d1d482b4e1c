"""Checks before a job: Java, the job server, the master, the workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from apache_beam.options.pipeline_options import (
  FlinkRunnerOptions,
  JobServerOptions,
  PipelineOptions,
  PortableOptions,
  PrismRunnerOptions,
  SetupOptions,
  SparkRunnerOptions,
)

from beam_retrain.pipelines.engines.findings import Finding, Severity, problem, warning
from beam_retrain.pipelines.engines.runners import (
  DOCKER,
  EXTERNAL,
  FLINK,
  LOOPBACK,
  PORTABLE,
  PRISM,
  PROCESS,
  SPARK,
  environment_of,
  is_embedded,
  loopback_is_processes,
  remote_master,
  runner_of,
)
from beam_retrain.transforms.core.errors import InputError

_SECS, _IMPORT_SECS = 5.0, 60.0
_MANIFEST = "META-INF/MANIFEST.MF"
_FLINK_VERSION = ".flink-runtime.version.properties"
# Neither Beam nor Flink goes through a proxy to a cluster.
_WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def validate_engine(prog: str, options: PipelineOptions) -> None:
  """Checks an engine, as far as this machine can tell."""
  for finding in check_engine(options):
    if finding.severity == Severity.PROBLEM:
      raise InputError(f"{prog}: {finding.sentence}")


def check_engine(options: PipelineOptions) -> Iterator[Finding]:
  """Yields warnings and problems of an engine.

  Takes seconds if its master does not answer.
  """
  runner = runner_of(options)
  endpoint = options.view_as(PortableOptions).job_endpoint
  if runner == PRISM:
    path = options.view_as(PrismRunnerOptions).prism_location
    if path and not urlparse(path).scheme and not os.path.exists(path):
      remedy = "give the path of prism, as `make engines` builds it"
      yield problem(f"--prism_location={path}", "it does not exist", remedy)
  if runner not in (FLINK, SPARK, PORTABLE):
    return
  if endpoint:
    yield from [] if endpoint == "embed" else _check_address("--job_endpoint", endpoint, "start the job server")
  elif runner == FLINK:
    yield from _check_flink(options)
  elif runner == SPARK:
    yield from _check_spark(options)
  else:
    yield problem("--runner=PortableRunner", "it needs a job server", "give its HOST:PORT with --job_endpoint")
  yield from _check_environment(options)


def _check_flink(options: PipelineOptions) -> Iterator[Finding]:
  from apache_beam.runners.portability.flink_runner import FlinkJarJobServer

  flink = options.view_as(FlinkRunnerOptions)
  path, line = flink.flink_job_server_jar, ""
  if flink.flink_submit_uber_jar and not is_embedded(options):
    if path:
      yield from _check_jar("--flink_job_server_jar", path, "")
  else:
    line = flink_line(flink.flink_version)
    yield from _check_java(options)
    if path:
      yield from _check_jar("--flink_job_server_jar", path, "org.apache.beam.runners.flink.")
    else:
      yield from _check_download(options, FlinkJarJobServer(options).path_to_jar(), "--flink_job_server_jar")
  if path:
    line = ""
    with contextlib.suppress(OSError, ValueError):  # yielded above
      line = read_jar(path)[1]
  if not is_embedded(options):
    yield from _check_flink_master(flink.flink_master.strip(), line, bool(path))


def _check_flink_master(master: str, line: str, has_jar: bool) -> Iterator[Finding]:
  """`line`: the job server's, such as `1.19`; empty if unknown."""
  thing = f"--flink_master={master}"
  url = master if re.match("https?://", master) else f"http://{master}"
  remedy = "start the cluster, or give HOST:PORT of the JobManager's REST interface, usually port 8081"
  try:
    with _WITHOUT_PROXY.open(f"{url.rstrip('/')}/config", timeout=_SECS) as answer:
      cluster = flink_line(str(json.load(answer)["flink-version"]))
  except urllib.error.HTTPError as error:
    if error.code not in (401, 403):  # a JobManager behind a password
      yield problem(thing, f"it is not a JobManager of Flink (HTTP {error.code})", remedy)
  except (ValueError, KeyError, TypeError, http.client.HTTPException):
    yield problem(thing, "it is not a JobManager of Flink", remedy)
  except OSError as error:
    reason = getattr(error, "reason", error)
    if not isinstance(reason, ssl.SSLError):  # Java trusts other certificates than Python
      yield problem(thing, f"nothing answers there ({_reason(reason)})", remedy)
  else:
    if line and cluster != line:
      cause = f"the cluster is Flink {cluster}, but the job server is for Flink {line}"
      remedy = "give the job server for the cluster's version with --flink_job_server_jar"
      yield problem(thing, cause, remedy if has_jar else f"add --flink_version={cluster}")


def _check_spark(options: PipelineOptions) -> Iterator[Finding]:
  from apache_beam.runners.portability.spark_runner import SparkJarJobServer

  spark = options.view_as(SparkRunnerOptions)
  if spark.spark_submit_uber_jar:
    if spark.spark_rest_url:
      address = urlparse(spark.spark_rest_url).netloc
      yield from _check_address("--spark_rest_url", address, "start the cluster, or give http://HOST:PORT")
    else:
      yield problem("--spark_submit_uber_jar", "it needs the master's REST interface", "give it with --spark_rest_url")
    return
  yield from _check_java(options)
  if spark.spark_job_server_jar:
    yield from _check_jar("--spark_job_server_jar", spark.spark_job_server_jar, "org.apache.beam.runners.spark.")
  else:
    yield from _check_download(options, SparkJarJobServer(options).path_to_jar(), "--spark_job_server_jar")
  master = spark.spark_master_url
  if master.startswith("spark://"):
    masters = master.removeprefix("spark://").split(",")
    remedy = "start the cluster, or give spark://HOST:PORT"
    findings = [finding for one in masters for finding in _check_address("--spark_master_url", one, remedy)]
    if len(findings) == len(masters):  # one reachable master is enough: the others are standbys
      yield findings[0]
  elif not is_embedded(options) and not re.match("yarn|k8s://|local-cluster", master):
    yield problem(f"--spark_master_url={master}", "it is not a Spark master", "give spark://HOST:PORT, or local[2]")


def _check_java(options: PipelineOptions) -> Iterator[Finding]:
  java = options.view_as(JobServerOptions).job_server_java_launcher
  if shutil.which(java) is None:
    remedy = "install Java 17, or give its path with --job_server_java_launcher"
    yield problem("Java", f"the job server needs it, and {java} does not exist", remedy)


def _check_jar(flag: str, path: str, main_class: str) -> Iterator[Finding]:
  """Checks a local jar; `main_class`: prefix of its main class."""
  if urlparse(path).scheme:
    return
  thing = f"{flag}={path}"
  remedy = "give the path of Beam's job server for this engine, as `make engines` or Maven downloads it"
  try:
    found, _, has_libraries = read_jar(path)
  except OSError as error:
    yield problem(thing, f"it cannot be read ({_reason(error)})", remedy)
  except ValueError as error:
    yield problem(thing, f"it is not a jar, or is damaged ({error})", remedy)
  else:
    if not found.startswith(main_class):
      main = f"its main class is {found}" if found else "it has no main class"
      yield problem(thing, f"it is not a job server of this engine ({main})", remedy)
    elif not has_libraries:
      yield problem(thing, "the jars that it names are not next to it", "give its original path, with its `lib/`")


def read_jar(path: str) -> tuple[str, str, bool]:
  """Reads a job server's jar.

  Returns:
    the main class, or ""; the line of Flink, such as `1.19`, or ""; and whether the jars that it names lie next to it.

  Raises:
    ValueError: it is not a jar, or is damaged.
    OSError: it cannot be read.
  """
  try:
    with zipfile.ZipFile(path) as jar:
      # A line of more than 72 bytes continues on the next one, after a space.
      manifest = re.sub(r"\r?\n ", "", jar.read(_MANIFEST).decode())
      version = jar.read(_FLINK_VERSION).decode() if _FLINK_VERSION in jar.namelist() else ""
  except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
    raise ValueError(str(error).strip("'\"")) from error
  libraries = _entry(manifest, "Class-Path:").split()
  version = _entry(version, "project.version=")
  for library in libraries:
    if found := re.match(r"flink-runtime-([\d.]+)\.jar$", Path(library).name):
      version = version or found[1]
  has_libraries = not libraries or any((Path(path).parent / library).exists() for library in libraries)
  return _entry(manifest, "Main-Class:"), flink_line(version), has_libraries


def _entry(text: str, name: str) -> str:
  return next((line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(name)), "")


def flink_line(version: str) -> str:
  """Returns the version's line, `1.19.3` -> `1.19`: others are incompatible."""
  return ".".join(version.split(".")[:2])


def _check_download(options: PipelineOptions, source: str, flag: str) -> Iterator[Finding]:
  """Checks that Beam can download its own job server.

  Args:
    source: a path or a URL.
  """
  from apache_beam.utils.subprocess_server import JavaJarServer

  name = os.path.basename(source)
  folder = options.view_as(JobServerOptions).jar_cache_dir or JavaJarServer.JAR_CACHE
  if os.path.exists(source) or os.path.exists(os.path.join(folder, name)):
    return
  reasons = []
  for repository in (JavaJarServer.MAVEN_CENTRAL_REPOSITORY, JavaJarServer.GOOGLE_MAVEN_MIRROR):
    url = source.replace(JavaJarServer.MAVEN_CENTRAL_REPOSITORY, repository)
    try:
      urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECS).close()
      return
    except OSError as error:
      reasons.append(_reason(getattr(error, "reason", error)))
  cause = f"{name} is not in {folder} and cannot be downloaded from Maven Central ({reasons[0]})"
  yield problem("job server", cause, f"download it elsewhere and put it there, or give its path with {flag}")


def _check_address(flag: str, address: str, remedy: str) -> Iterator[Finding]:
  host, _, port = address.rpartition(":")
  thing = f"{flag}={address}"
  if not (host and port.isdecimal()):
    yield problem(thing, "it is not HOST:PORT", remedy)
    return
  try:
    socket.create_connection((host.strip("[]"), int(port)), _SECS).close()
  except (OSError, OverflowError) as error:
    yield problem(thing, f"nothing answers there ({_reason(error)})", remedy)


def _check_environment(options: PipelineOptions) -> Iterator[Finding]:
  kind = environment_of(options)
  config = options.view_as(PortableOptions).environment_config or ""
  if kind == LOOPBACK:
    yield from _check_loopback(options)
  elif kind == DOCKER:
    yield from _check_docker(options, config or _environment_option(options, "docker_container_image"))
  elif kind == PROCESS:
    yield from _check_command(options, config)
  elif kind == EXTERNAL and not (config or _environment_option(options, "external_service_address")):
    remedy = "give the HOST:PORT of a worker pool with --environment_config"
    yield problem("--environment_type=EXTERNAL", "the workers' address is missing", remedy)


def _check_loopback(options: PipelineOptions) -> Iterator[Finding]:
  if remote_master(options):
    remedy = "use --environment_type=PROCESS, EXTERNAL or DOCKER"
    yield warning("--environment_type=LOOPBACK", "workers on other machines cannot reach this process", remedy)
  if not loopback_is_processes(options):
    return
  python = shutil.which("python")
  code = "from importlib.util import find_spec as f; import sys; sys.exit(not (f('apache_beam') and f('beam_retrain')))"
  if python is None or subprocess.run([python, "-c", code], timeout=_IMPORT_SECS, check=False).returncode:
    lacks = "does not have both Beam and beam-retrain" if python else "is not on PATH"
    cause = f"workers are started with {python or 'python'}, which {lacks}"
    remedy = f"put {os.path.dirname(sys.executable)} first on PATH"
    yield problem("--experiments=use_loopback_process_worker", cause, remedy)


def _check_docker(options: PipelineOptions, image: str) -> Iterator[Finding]:
  setup = options.view_as(SetupOptions)
  if not (image or setup.setup_file or setup.extra_packages or setup.requirements_file):
    cause = "workers would run in Beam's own image, which does not contain beam-retrain"
    remedy = "give an image that does with --environment_config, or add --setup_file=./setup.py"
    yield problem("--environment_type=DOCKER", cause, remedy)
  elif is_embedded(options) and shutil.which("docker") is None:
    yield problem("--environment_type=DOCKER", "docker is not installed", "leave it out: workers need no container")


def _check_command(options: PipelineOptions, config: str) -> Iterator[Finding]:
  thing, remedy = "--environment_type=PROCESS", """give --environment_config='{"command": "/path/of/it"}'"""
  command = _environment_option(options, "process_command")
  if config:
    try:
      command = json.loads(config).get("command")
    except (ValueError, AttributeError) as error:
      yield problem("--environment_config", f"{config} is not a JSON object ({error})", remedy)
      return
  if not command:
    yield problem(thing, "the command that starts a worker is missing", remedy)
  elif remote_master(options):
    return  # the command is another machine's
  elif shutil.which(command) is None:
    yield problem(thing, f"{command} does not exist, or is not executable", remedy)
  elif missing := _missing_module(command):
    remedy = "install beam-retrain in its Python"
    yield problem(thing, f"{command} does not start a worker ({missing})", remedy)


def _missing_module(command: str) -> str:
  """Returns the error of a missing module in `command --help`, or "".

  Runs outside the current folder, which may be a checkout: the engine starts the command elsewhere.
  """
  try:
    asked = subprocess.run(
      [command, "--help"], cwd=os.sep, stdin=subprocess.DEVNULL, capture_output=True, timeout=_IMPORT_SECS, check=False
    )
  except (OSError, subprocess.TimeoutExpired):
    return ""
  found = re.search(rb"No module named '[^']*'|cannot import name .*", asked.stderr)
  return found[0].decode(errors="replace").strip() if found and asked.returncode else ""


def _environment_option(options: PipelineOptions, name: str) -> str:
  return options.view_as(PortableOptions).lookup_environment_option(name) or ""


def _reason(error: object) -> str:
  return str(getattr(error, "strerror", None) or error)
