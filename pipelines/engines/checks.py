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

from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines import runners
from beam_retrain.pipelines.engines.findings import Finding, minor_version, problem, warning
from beam_retrain.pipelines.engines.runners import FLINK, PORTABLE, PRISM, SPARK, JobOptions, is_embedded, remote_master
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.imports import OWN_JOB

_SECS, _IMPORT_SECS = 5.0, 60.0
_EXCLUDES = "-Dspark.excludeOnFailure.enabled=true"
# Neither Beam nor Flink goes through a proxy to a cluster.
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def validate_engine(prog: str, options: PipelineOptions) -> None:
  """Raises InputError for an engine that this machine finds unusable."""
  for finding in check_engine(options):
    if finding.is_problem:
      raise InputError(f"{prog}: {finding.sentence}")


def check_engine(pipeline_options: PipelineOptions) -> Iterator[Finding]:
  """Yields warnings and problems; takes seconds if a master does not answer."""
  options, runner = pipeline_options.view_as(JobOptions), runners.runner_of(pipeline_options)
  if runner == PRISM and (path := options.prism_location) and not urlparse(path).scheme and not os.path.exists(path):
    remedy = "give the path of prism, as `make engines` builds it"
    yield problem(f"--prism_location={path}", "it does not exist", remedy)
  if runner not in (FLINK, SPARK, PORTABLE):
    return
  if options.job_endpoint:
    if options.job_endpoint != "embed":
      yield from _check_address("--job_endpoint", options.job_endpoint, "start the job server")
  elif runner == PORTABLE:
    yield problem("--runner=PortableRunner", "it needs a job server", "give its HOST:PORT with --job_endpoint")
  elif runner == FLINK:
    yield from _check_job_server(options, "flink", options.flink_job_server_jar)
    yield from _check_flink_master(options)
  else:
    yield from _check_job_server(options, "spark", options.spark_job_server_jar)
    yield from _check_spark_master(options)
  yield from _check_workers(options)


def _is_without_job_server(options: JobOptions) -> bool:
  """Whether Beam sends the job to the cluster within a jar."""
  if runners.runner_of(options) == SPARK:
    return bool(options.spark_submit_uber_jar)
  return bool(options.flink_submit_uber_jar) and not is_embedded(options)


def _check_job_server(options: JobOptions, engine: str, path: str) -> Iterator[Finding]:
  """Checks Java and the jar `path`, or the download of Beam's own."""
  flag, java = f"--{engine}_job_server_jar", options.job_server_java_launcher
  is_started = not _is_without_job_server(options)
  if is_started and shutil.which(java) is None:
    remedy = "install Java 17, or give its path with --job_server_java_launcher"
    yield problem("Java", f"the job server needs it, and {java} does not exist", remedy)
  if path and not urlparse(path).scheme:
    try:
      read_jar(path, f"org.apache.beam.runners.{engine}." if is_started else "")
    except (OSError, ValueError) as error:
      remedy = "give the path of Beam's job server for this engine, as `make engines` or Maven downloads it"
      yield problem(f"{flag}={path}", f"it is not a job server of this engine ({_reason(error)})", remedy)
  elif is_started and not path and (cause := _no_download(options)):
    yield problem("job server", cause, f"download it elsewhere and put it there, or give its path with {flag}")


def read_jar(path: str, main_class: str = "") -> str:
  """Returns a job server's line of Flink, such as `1.19`, or "".

  Raises OSError, and ValueError if it is not a jar, is damaged, or has a main class that does not begin with
  `main_class`; or the jars that it names are not next to it.
  """
  of_flink = ".flink-runtime.version.properties"
  try:
    with zipfile.ZipFile(path) as jar:
      # A line of more than 72 bytes continues on the next one, after a space.
      manifest = re.sub(r"\r?\n ", "", jar.read("META-INF/MANIFEST.MF").decode())
      properties = jar.read(of_flink).decode() if of_flink in jar.namelist() else ""
  except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
    raise ValueError(str(error).strip("'\"")) from error
  found, names = _entry("Main-Class:", manifest), _entry("Class-Path:", manifest)
  if not found.startswith(main_class):
    raise ValueError(f"its main class is {found}" if found else "it has no main class")
  if names and not any((Path(path).parent / name).exists() for name in names.split()):
    raise ValueError("the jars that it names are not next to it, in its `lib/`")
  version = re.search(r"(?:^|[/ ])flink-runtime-([\d.]+)\.jar", names)
  return minor_version(_entry("project.version=", properties) or (version[1] if version else ""))


def _entry(name: str, text: str) -> str:
  return next((line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(name)), "")


def _no_download(options: JobOptions) -> str:
  """Returns why Beam cannot get its own job server, or ""."""
  from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
  from apache_beam.runners.portability.spark_runner import SparkJarJobServer
  from apache_beam.utils.subprocess_server import JavaJarServer

  server = FlinkJarJobServer if runners.runner_of(options) == FLINK else SparkJarJobServer
  source = server(options).path_to_jar()  # a path or a URL
  name = os.path.basename(source)
  folder = options.jar_cache_dir or JavaJarServer.JAR_CACHE
  if os.path.exists(source) or os.path.exists(os.path.join(folder, name)):
    return ""
  reasons = []
  for repository in (JavaJarServer.MAVEN_CENTRAL_REPOSITORY, JavaJarServer.GOOGLE_MAVEN_MIRROR):
    url = source.replace(JavaJarServer.MAVEN_CENTRAL_REPOSITORY, repository)
    try:
      urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECS).close()
      return ""
    except OSError as error:
      reasons.append(_reason(error))
  return f"{name} is not in {folder} and cannot be downloaded from Maven Central ({reasons[0]})"


def _check_flink_master(options: JobOptions) -> Iterator[Finding]:
  if is_embedded(options):
    return
  master, path = options.flink_master.strip(), options.flink_job_server_jar
  thing = f"--flink_master={master}"
  url = master if re.match("https?://", master) else f"http://{master}"
  remedy = "start the cluster, or give HOST:PORT of the JobManager's REST interface, usually port 8081"
  try:
    with WITHOUT_PROXY.open(f"{url.rstrip('/')}/config", timeout=_SECS) as answer:
      cluster = minor_version(str(json.load(answer)["flink-version"]))
  except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
    has_password = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403)
    # Java trusts other certificates than Python.
    if not has_password and not isinstance(getattr(error, "reason", error), ssl.SSLError):
      yield problem(thing, f"no JobManager of Flink answers there ({_reason(error)})", remedy)
    return
  line = "" if path or _is_without_job_server(options) else minor_version(options.flink_version)
  with contextlib.suppress(OSError, ValueError):  # reported by _check_job_server
    line = read_jar(path) if path else line
  if line and cluster != line:
    cause = f"the cluster is Flink {cluster}, but the job server is for Flink {line}"
    remedy = "give the job server for the cluster's version with --flink_job_server_jar"
    yield problem(thing, cause, remedy if path else f"add --flink_version={cluster}")


def _check_spark_master(options: JobOptions) -> Iterator[Finding]:
  master, rest_url = options.spark_master_url, options.spark_rest_url
  if _is_without_job_server(options):
    if rest_url:
      remedy = "start the cluster, or give http://HOST:PORT"
      yield from _check_address("--spark_rest_url", urlparse(rest_url).netloc, remedy)
    else:
      yield problem("--spark_submit_uber_jar", "it needs the master's REST interface", "give it with --spark_rest_url")
  elif master.startswith("spark://"):
    remedy = "start the cluster, or give spark://HOST:PORT"
    masters = master.removeprefix("spark://").split(",")
    found = [list(_check_address("--spark_master_url", one, remedy)) for one in masters]
    if all(found):  # one reachable master is enough: the others are standbys
      yield from found[0]
  elif not is_embedded(options) and not re.match("yarn|k8s://|local-cluster", master):
    yield problem(f"--spark_master_url={master}", "it is not a Spark master", "give spark://HOST:PORT, or local[2]")


def _check_address(flag: str, address: str, remedy: str) -> Iterator[Finding]:
  host, _, port = address.rpartition(":")
  cause = "" if host and port.isdecimal() else "it is not HOST:PORT"
  try:
    if not cause:
      socket.create_connection((host.strip("[]"), int(port)), _SECS).close()
  except (OSError, OverflowError) as error:
    cause = f"nothing answers there ({_reason(error)})"
  if cause:
    yield problem(f"{flag}={address}", cause, remedy)


def _check_workers(options: JobOptions) -> Iterator[Finding]:
  kind, config = runners.environment_of(options), options.environment_config or ""
  thing = f"--environment_type={kind}"
  cache_millis = int(options.environment_cache_millis)
  excludes = _EXCLUDES in (options.job_server_jvm_properties or ())
  if cache_millis > 0 and runners.runner_of(options) == SPARK and not is_embedded(options) and not excludes:
    cause = "Spark retries a failed task with the cached worker, even a dead one"
    remedy = f"if workers may die, add --job_server_jvm_properties={_EXCLUDES}, as deploy/engines/cluster.py does"
    yield warning(f"--environment_cache_millis={cache_millis}", cause, remedy)
  if kind == runners.LOOPBACK:
    if remote_master(options):
      remedy = "use --environment_type=PROCESS, EXTERNAL or DOCKER"
      yield warning(thing, "workers on other machines cannot reach this process", remedy)
    if runners.loopback_is_processes(options):
      yield from _check_python_on_path()
  elif kind == runners.PROCESS:
    yield from _check_command(options, config)
  elif kind == runners.EXTERNAL:
    if not (config or options.lookup_environment_option("external_service_address")):
      remedy = "give the HOST:PORT of a worker pool with --environment_config"
      yield problem(thing, "the workers' address is missing", remedy)
  elif kind == runners.DOCKER:
    image = config or options.lookup_environment_option("docker_container_image")
    if not (image or options.setup_file or options.extra_packages or options.requirements_file):
      cause = "workers would run in Beam's own image, which does not contain beam-retrain"
      remedy = "give an image that does with --environment_config, or add --setup_file=./setup.py"
      yield problem(thing, cause, remedy)
    elif is_embedded(options) and shutil.which("docker") is None:
      yield problem(thing, "docker is not installed", "leave it out: workers need no container")


def _check_python_on_path() -> Iterator[Finding]:
  python = shutil.which("python")
  code = "from importlib.util import find_spec as f; import sys; sys.exit(not (f('apache_beam') and f('beam_retrain')))"
  if python is None or subprocess.run([python, "-c", code], timeout=_IMPORT_SECS, check=False).returncode:
    lacks = "does not have both Beam and beam-retrain" if python else "is not on PATH"
    cause = f"workers are started with {python or 'python'}, which {lacks}"
    remedy = f"put {os.path.dirname(sys.executable)} first on PATH"
    yield problem("--experiments=use_loopback_process_worker", cause, remedy)


def _check_command(options: JobOptions, config: str) -> Iterator[Finding]:
  thing, remedy = "--environment_type=PROCESS", """give --environment_config='{"command": "/path/of/it"}'"""
  try:
    command = json.loads(config).get("command") if config else options.lookup_environment_option("process_command")
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
      [command, "--help"],
      cwd=os.sep,
      env={**os.environ, OWN_JOB: "1"},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      timeout=_IMPORT_SECS,
      check=False,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ""
  found = re.search(rb"No module named '[^']*'|cannot import name .*", asked.stderr)
  return found[0].decode(errors="replace").strip() if found and asked.returncode else ""


def _reason(error: Exception) -> str:
  inner = getattr(error, "reason", None)  # a URLError's
  found = inner if isinstance(inner, Exception) else error
  return str(getattr(found, "strerror", None) or found)
