"""What programs ask a server, in a process of its own: the API, and what it refuses."""

from __future__ import annotations

import base64
import collections
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.metrics.predictions import read_predictions
from beam_retrain.transforms.core.records.csv_format import unescape_cell
from beam_retrain.transforms.core.records.quarantine import Reason
from beam_retrain.transforms.io import files
from tests.helpers import bomb, noise_image
from tests.system.serve_suite import Served, as_rows, served

MODEL = "/v1/models/model"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def server(made) -> Iterator[Served]:
  with served(f"--model={made.model}", f"--bottlenecks={made.bottlenecks}") as one:
    yield one


@pytest.fixture(scope="module")
def pictures(made) -> dict[str, bytes]:
  paths = sorted(made.data.rglob("*.png"))[:1000]
  return {path.relative_to(made.data).as_posix(): path.read_bytes() for path in paths}


def test_it_says_what_predict_and_evaluate_say_of_a_thousand_images(server, made, pictures, tmp_path, capsys):
  keys, answered = list(pictures), {}
  for start in range(0, len(keys), 100):
    for row in server.predict({key: pictures[key] for key in keys[start : start + 100]})["predictions"]:
      answered[row["key"]] = row
  assert list(answered) == keys
  capsys.readouterr()
  assert main(["predict", f"--model={made.model}", "--format=json", *(str(made.data / key) for key in keys)]) == 0
  predicted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  for row, (key, answer) in zip(predicted, answered.items(), strict=True):
    assert row["file_name"] == str(made.data / key)
    assert row["label"] == answer["label"] == answer["top_labels"][0]
    assert row["confidence"] == pytest.approx(answer["confidence"], abs=5e-5)
  flags = (f"--input={made.data}", f"--model={made.model}", f"--output={tmp_path / 'e'}")
  assert main(["evaluate", *flags, "--split=all"]) == 0
  path = str(tmp_path / "e" / "predictions.csv")
  rows = {unescape_cell(row.key): row for row in read_predictions(files.read_lines(path), path)}
  for key, answer in answered.items():
    assert unescape_cell(rows[key].predicted) == answer["label"]
    assert float(rows[key].confidence) / 100 == pytest.approx(answer["confidence"], abs=5e-5)


def test_columns_are_answered_in_columns(server, pictures):
  (key, data), *_ = pictures.items()
  body = {"inputs": {"image_bytes": [{"b64": base64.b64encode(data).decode()}], "key": [key]}}
  outputs = server.ask(f"{MODEL}/versions/1:predict", json.dumps(body)).json["outputs"]
  assert outputs == {name: [value] for name, value in server.predict({key: data})["predictions"][0].items()}
  assert set(outputs) == {"key", "label", "confidence", "top_labels", "top_scores", "scores"}


def test_what_else_it_says_of_itself(server, made):
  assert server.ask(MODEL).json["model_version_status"][0]["state"] == "AVAILABLE"
  assert server.ask("/healthz").body == b"ok\n"
  described = server.ask("/openapi.json").json
  assert set(described["paths"]) == {f"{MODEL}:predict", MODEL, "/healthz", "/metrics"}
  assert f"POST {MODEL}:predict" in server.ask("/api").body.decode()
  text = server.ask("/metrics").body.decode()
  assert "# TYPE beam_retrain_serve_requests_total counter" in text
  assert 'beam_retrain_serve_requests_total{method="GET",status="200"}' in text


def test_a_bad_image_is_refused_with_its_reason_and_the_rest_is_not_computed_wrongly(server, pictures):
  (key, data), *_ = pictures.items()
  answer = server.ask(f"{MODEL}:predict", as_rows({key: data, "x": b"", "y": data[:40], "z": bomb(30_000, 30_000)}))
  assert answer.status == 400
  found = answer.json["error"]
  assert [f"image {number} " in found for number in range(4)] == [False, True, True, True]
  assert [reason in found for reason in ("EMPTY", "TRUNCATED", "TOO_LARGE")] == [True] * 3
  assert server.ask("/try", b"no image").json["fault"].startswith("NOT_AN_IMAGE: ")
  assert 'beam_retrain_serve_bad_images_total{reason="TRUNCATED"} 1\n' in server.ask("/metrics").body.decode()


def test_damaged_uploads_are_answered_each_with_a_label_or_a_reason(server):
  rng = random.Random(5)
  for number in range(300):
    data = bytearray(noise_image(number, ("PNG", "JPEG", "GIF", "BMP", "WEBP")[number % 5]))
    for _ in range(rng.randint(1, 8)):
      data[rng.randrange(len(data))] = rng.randrange(256)
    answer = server.ask("/try", bytes(data[: rng.randint(1, 2 * len(data))]))
    assert answer.status == 200
    assert "top" in answer.json or answer.json["fault"].partition(":")[0] in list(Reason)
  assert server.ask("/healthz").status == 200


_REFUSED = [
  (421, {"Host": "evil.example"}),
  (421, {"Host": "evil.example:8501"}),
  (421, {"Host": "10.0.0.1"}),
  (421, {"Host": ""}),
  (421, {"Host": "[::1"}),
  (403, {"Origin": "http://evil.example"}),
  (403, {"Origin": "null"}),
  (403, {"Origin": "http://localhost:1"}),
  (403, {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}),
  (403, {"Sec_Fetch_Site": "same-site"}),
]


@pytest.mark.parametrize(("status", "headers"), _REFUSED)
@pytest.mark.parametrize(("path", "body"), [("/", None), (f"{MODEL}:predict", "{}"), ("/try", "x"), ("/login", '""')])
def test_pages_of_other_sites_may_not_ask(server, path, body, status, headers):
  assert server.ask(path, body, **headers).status == status


def test_a_link_of_another_site_may_open_the_page_and_this_machine_has_several_names(server):
  assert server.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
  assert server.ask("/try", b"x", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 403
  for host in ("localhost", "localhost.", "127.0.0.1:9", "[::1]:9", "LOCALHOST:80"):
    assert server.ask("/", Host=host).status == 200
  assert server.ask("/healthz", Origin=f"http://127.0.0.1:{server.port}").status == 200


_PATHS = ["/../etc/passwd", "/static/../app.py", "/static/..%2fapp.py", "/static/app.py", "/static/base.html"]
_PATHS += ["/images/-1", "/images/999999", "/images/0%2f..", "/images/x", "/nights", "/nights/..%2f..", "/review"]
_PATHS += ["/review/items", "/v1/models/other", "/nowhere", "//etc/passwd", "/images/" + "9" * 5_000]


@pytest.mark.parametrize("path", _PATHS)
def test_no_path_reaches_a_file(server, path):
  answer = server.ask(path)
  assert answer.status == 404
  assert set(answer.json) == {"error"}


def test_another_model_s_address_is_answered_with_this_one_s(server):
  said = server.ask("/v1/models/other:predict", b"{}").json["error"]
  assert said == "there is no such address; the model's is /v1/models/model."


def test_each_answer_forbids_what_a_page_does_not_need(server):
  for path in ("/", "/healthz", "/nowhere", "/static/style.css"):
    headers = {name.lower(): value for name, value in server.ask(path).headers.items()}
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_nearest_images_are_shown_by_their_numbers(server, pictures):
  near = server.ask("/try", next(iter(pictures.values()))).json["near"]
  assert len(near) == 12
  assert near[0]["cosine"] == pytest.approx(1, abs=1e-3)
  for one in near:
    answer = server.ask(f"/images/{one['image']}")
    assert answer.body == pictures.get(one["key"], answer.body)
    assert server.ask(f"/images/{one['image']}?small=1").headers["content-type"] == "image/png"


def test_a_body_is_bounded_before_it_is_read(server):
  with socket.create_connection(("127.0.0.1", server.port)) as client:
    client.sendall(b"POST /try HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
  with socket.create_connection(("127.0.0.1", server.port)) as client:
    client.sendall(b"POST /try HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks = itertools.repeat(b"100000\r\n" + b"x" * 0x100000 + b"\r\n", 100)
    with pytest.raises(ConnectionError):  # the server stops reading
      collections.deque(map(client.sendall, chunks))
  assert server.ask("/healthz").status == 200


def test_silent_and_half_clients_stop_nobody(server, pictures):
  starts = [b"", b"POST /try HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx", b"GET / HT", b"\x00" * 50]
  clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(600)]
  for number, client in enumerate(clients):
    client.sendall(starts[number % len(starts)])
  assert server.predict(dict([next(iter(pictures.items()))]))["predictions"]
  for client in clients:
    client.close()


def test_a_hundred_clients_at_once_lose_nothing(server, pictures):
  found: dict[str, str] = {}

  def ask(key: str) -> None:
    answer = server.ask("/try", pictures[key])
    while answer.status == 503:
      assert answer.headers["retry-after"] == "1"
      answer = server.ask("/try", pictures[key])
    found[key] = answer.json["top"][0][0]

  threads = [threading.Thread(target=ask, args=(key,)) for key in list(pictures)[:100]]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  alone = server.predict({key: pictures[key] for key in found})["predictions"]
  assert {row["key"]: row["label"] for row in alone} == found
  assert len(found) == 100


def test_sigterm_answers_what_was_asked_and_ctrl_c_ends_in_one_line(made, pictures):
  with served(f"--model={made.model}") as one:
    body = as_rows(dict(list(pictures.items())[:128]))
    with socket.create_connection(("127.0.0.1", one.port)) as client:
      head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
      client.sendall((head + body[:-1]).encode())
      assert one.ask("/healthz").status == 200  # the request has begun
      ended: list[tuple[int, str]] = []
      ending = threading.Thread(target=lambda: ended.append(one.end()))
      ending.start()
      while not _is_refused(one.port):
        time.sleep(0.05)
      client.sendall(body[-1:].encode())
      answer = b"".join(iter(lambda: client.recv(1 << 20), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]) == 128
    ending.join()
    assert ended == [(0, "stopped after 128 images\n")]
  with served(f"--model={made.model}") as one:
    assert one.end(2) == (0, "stopped after 0 images\n")


def _is_refused(port: int) -> bool:
  try:
    socket.create_connection(("127.0.0.1", port)).close()
  except ConnectionRefusedError:
    return True
  return False


def test_others_need_the_token(made, tmp_path):
  (tmp_path / "token").write_text(f"{TOKEN}\n")
  with served(f"--model={made.model}", "--host=0.0.0.0", f"--token=@{tmp_path / 'token'}") as one:
    assert one.ask("/metrics").status == 401
    assert one.ask("/try", b"x", Authorization=f"Bearer {TOKEN}x").status == 401
    assert one.ask("/try", b"x", Authorization=f"Bearer {TOKEN}").status == 200
    assert one.ask("/try", b"x", Cookie="beam-retrain=").status == 401
    page = one.ask("/", Accept="text/html")
    assert (page.status, page.headers["location"]) == (303, "/login")
    assert [one.ask(path).status for path in ("/login", "/healthz", "/static/login.js")] == [200] * 3
    assert [one.ask("/login", body).status for body in (f"{TOKEN}x", "", b"\xff", "[" * 9)] == [
      401,
      401,
      401,
      401,
    ]
    cookie = one.ask("/login", TOKEN).headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert one.ask("/", Cookie=cookie.partition(";")[0]).status == 200
    assert one.ask("/", Cookie=cookie.partition(";")[0], Host="evil.example").status == 421
