"""The server's routes: API, pages, and what their scripts ask."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.resources
import json
import operator
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from beam_retrain.pipelines.predict import rank
from beam_retrain.pipelines.serve import rest
from beam_retrain.pipelines.serve.batches import Answer, Batches, BusyError
from beam_retrain.pipelines.serve.corrections import ConflictError
from beam_retrain.pipelines.serve.guard import COOKIE, Access, Bodies, Guard, busy, refused
from beam_retrain.pipelines.serve.images import Images, InputImages
from beam_retrain.pipelines.serve.neighbours import Neighbours
from beam_retrain.pipelines.serve.nights import History
from beam_retrain.pipelines.serve.openapi import describe
from beam_retrain.pipelines.serve.review import Review
from beam_retrain.reporting.html_report import escaping_environment
from beam_retrain.reporting.prometheus import Sample, exposition
from beam_retrain.transforms.core.corrections import Correction
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import Inferred
from beam_retrain.transforms.core.printing import printable
from beam_retrain.transforms.core.records.quarantine import Quarantined

ANSWER_SECS = 60.0
TOP, NEIGHBOURS = 5, 12
_ONE_CHARACTER = re.compile(r"[0-9]|[A-Za-z]")
# A report decides by its own policy which of its scripts run; here it can only reach nobody.
_REPORT_POLICY = (
  "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
_TYPES = {"css": "text/css", "js": "text/javascript"}
_METRICS = {
  "serve_requests_total": ("counter", "Requests, by method and status."),
  "serve_images_total": ("counter", "Images that the model was given."),
  "serve_batches_total": ("counter", "Batches in which they were computed."),
  "serve_bad_images_total": ("counter", "Images that could not be used, by reason."),
  "serve_waiting_images": ("gauge", "Images that wait for the model."),
}

Handler = Callable[[Request], Awaitable[Response]]


class Stored(NamedTuple):
  """Bottlenecks of training images, and these images."""

  neighbours: Neighbours
  images: InputImages


@dataclasses.dataclass
class Server:
  """What the routes answer from; parts not asked for are None."""

  name: str
  labels: Sequence[str]
  batches: Batches
  access: Access
  images: Images
  stored: Stored | None = None
  review: Review | None = None
  history: History | None = None
  requests: dict[tuple[str, int], int] = dataclasses.field(default_factory=dict)
  faults: dict[str, int] = dataclasses.field(default_factory=dict)
  bodies: Bodies = dataclasses.field(default_factory=Bodies)

  def __post_init__(self) -> None:
    folder = importlib.resources.files("beam_retrain.pipelines.serve") / "pages"
    texts = {path.name: path.read_text("utf-8") for path in folder.iterdir() if path.is_file()}
    self._static = {name: text for name, text in texts.items() if name.rpartition(".")[2] in _TYPES}
    self._pages = escaping_environment(jinja2.DictLoader(texts))

  def app(self) -> Starlette:
    model = f"/v1/models/{self.name}"
    posts: Mapping[str, Handler] = {
      f"{model}:predict": self.predict,
      f"{model}/versions/1:predict": self.predict,
      "/try": self.try_image,
      "/review/decide": self.decide,
      "/login": self.log_in,
    }
    gets: Mapping[str, Handler] = {
      "/": self.try_page,
      "/review": self.review_page,
      "/review/items": self.review_items,
      "/review/decisions": self.review_decisions,
      "/review/like/{item:int}": self.like_item,
      "/nights": self.nights_page,
      "/nights/{date}": self.night_page,
      "/nights/{date}/report": self.night_report,
      "/api": self.api_page,
      "/login": self.login_page,
      "/openapi.json": self.openapi,
      "/images/{number:int}": self.image,
      "/static/{name}": self.static,
      model: self.status,
      f"{model}/versions/1": self.status,
      "/healthz": self.health,
      "/metrics": self.metrics,
    }
    return Starlette(
      routes=[
        *(Route(path, handler, methods=["POST"]) for path, handler in posts.items()),
        *(Route(path, handler, methods=["GET"]) for path, handler in gets.items()),
      ],
      middleware=[Middleware(Guard, access=self.access, count=self._count)],
      exception_handlers={HTTPException: self._as_json},
    )

  async def _as_json(self, request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if detail == HTTPStatus.NOT_FOUND.phrase:  # Starlette's own
      detail = f"there is no such address; the model's is /v1/models/{self.name}."
    return JSONResponse({"error": detail}, error.status_code, error.headers)

  def _count(self, method: str, status: int) -> None:
    known = method if method in ("GET", "POST") else "other"
    self.requests[known, status] = self.requests.get((known, status), 0) + 1

  async def _infer(self, images: Sequence[bytes]) -> Answer | Response:
    try:
      async with asyncio.timeout(ANSWER_SECS):
        answer = await asyncio.wrap_future(self.batches.submit(images))
    except (BusyError, TimeoutError):
      return busy()
    for result in answer:
      if isinstance(result, Quarantined):
        self.faults[result.reason] = self.faults.get(result.reason, 0) + 1
    return answer

  async def predict(self, request: Request) -> Response:
    body = await self.bodies.read(request)
    if isinstance(body, Response):
      return body
    try:
      asked = await run_in_threadpool(rest.parse, body)
      answer = await self._infer(asked.images)
      return answer if isinstance(answer, Response) else JSONResponse(rest.answer(asked, answer, self.labels))
    except rest.RefusedError as error:
      return refused(error)

  async def try_image(self, request: Request) -> Response:
    """Answers the bytes of one image with labels and nearest images."""
    body = await self.bodies.read(request)
    return body if isinstance(body, Response) else await self._look_at(body)

  async def _look_at(self, encoded: bytes, apart_from: str = "") -> Response:
    answer = await self._infer([encoded])
    if isinstance(answer, Response):
      return answer
    (result,) = answer
    if not isinstance(result, Inferred):
      return JSONResponse({"fault": f"{result.reason}: {result.detail}"})
    top = rank(result.outputs["scores"], self.labels, TOP)
    near = await run_in_threadpool(self._nearest, result) if self.stored else []
    near = [one for one in near if one["sha256"] != apart_from]
    return JSONResponse({"top": top, "near": near})

  def _nearest(self, result: Inferred) -> list[Mapping[str, object]]:
    assert self.stored
    neighbours, source = self.stored
    return [
      {"image": self.images.number(source, image.key, image.sha256), **image._asdict(), "cosine": round(cosine, 4)}
      for image, cosine in neighbours.nearest(result.outputs["bottleneck"], NEIGHBOURS)
    ]

  async def image(self, request: Request) -> Response:
    shown = await run_in_threadpool(self.images.show, request.path_params["number"], "small" in request.query_params)
    if not shown:
      raise HTTPException(404, "the image is not there any more, or has changed.")
    kind, data = shown
    return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=600"})

  async def static(self, request: Request) -> Response:
    text = self._static.get(request.path_params["name"])
    if text is None:
      raise HTTPException(404, "there is no such file.")
    return Response(text, media_type=_TYPES[request.path_params["name"].rpartition(".")[2]])

  def _page(self, name: str, **values: object) -> Response:
    pages = {"/": "Try", "/review": self.review and "Review", "/nights": self.history and "Nights", "/api": "API"}
    shown = {path: title for path, title in pages.items() if title}
    return HTMLResponse(self._pages.get_template(f"{name}.html").render(name=self.name, pages=shown, **values))

  async def try_page(self, request: Request) -> Response:
    draws = all(_ONE_CHARACTER.fullmatch(label) for label in self.labels)
    return self._page("try", at="/", draws=draws, labels=len(self.labels), has_near=self.stored is not None)

  async def review_page(self, request: Request) -> Response:
    return self._page(
      "review", at="/review", path=self._reviewed().corrections.path, left_out=self._reviewed().left_out
    )

  def _reviewed(self) -> Review:
    if not self.review:
      raise HTTPException(404, "there is nothing to review: start the server with --evaluation.")
    return self.review

  async def review_items(self, request: Request) -> Response:
    """Answers all items; their index is their number."""
    items = [{**vars(item), "name": printable(item.key)} for item in self._reviewed().items]
    return JSONResponse({"labels": self.labels, "items": items, **await self._decided()})

  async def review_decisions(self, request: Request) -> Response:
    return JSONResponse(await self._decided())

  async def _decided(self) -> dict[str, object]:
    decisions = await run_in_threadpool(self._reviewed().decisions)
    return {"decisions": {str(index): one._asdict() for index, one in decisions.items()}}

  async def like_item(self, request: Request) -> Response:
    """Answers the training images nearest to an item's image."""
    items, index = self._reviewed().items, request.path_params["item"]
    encoded = await run_in_threadpool(self.images.read, items[index].image) if index < len(items) else None
    if encoded is None or not self.stored:
      raise HTTPException(404, "there is no such image, or no bottlenecks are served.")
    return await self._look_at(encoded, apart_from=items[index].sha256)

  async def decide(self, request: Request) -> Response:
    review, body = self._reviewed(), await self.bodies.read(request)
    if isinstance(body, Response):
      return body
    try:
      given = json.loads(body)
      seen = Correction(**given["seen"]) if given["seen"] else None
      texts = str(given.get("label", "")), str(given.get("note", ""))
      arguments = operator.index(given["item"]), given["sha256"], given["decision"], *texts, seen
    except (ValueError, TypeError, KeyError, RecursionError) as error:
      raise HTTPException(400, "the body is {item, sha256, decision, label, note, seen}.") from error
    try:
      await run_in_threadpool(review.decide, *arguments)
    except InputError as error:
      return refused(error)
    except ConflictError:
      return JSONResponse({"error": "another page has decided on this image: see there.", **await self._decided()}, 409)
    return JSONResponse(await self._decided())

  def _nights(self) -> History:
    if not self.history:
      raise HTTPException(404, "there are no nights: start the server with --history.")
    return self.history

  async def nights_page(self, request: Request) -> Response:
    return self._page("nights", at="/nights", nights=await run_in_threadpool(self._nights().nights))

  async def night_page(self, request: Request) -> Response:
    history, date = self._nights(), request.path_params["date"]
    night = await run_in_threadpool(history.night, date)
    if not night or not night.metrics:
      raise HTTPException(404, f"there is no such night: {night.fault}." if night else "there is no such night.")
    changes = {kind: await run_in_threadpool(history.changes, date, kind) for kind in ("regressed", "fixed")}
    return self._page("night", at="/nights", night=night, changes=changes)

  async def night_report(self, request: Request) -> Response:
    report = await run_in_threadpool(self._nights().report, request.path_params["date"])
    if not report:
      raise HTTPException(404, "this night has no report.")
    return HTMLResponse(report, headers={"Content-Security-Policy": _REPORT_POLICY})

  async def api_page(self, request: Request) -> Response:
    return self._page("api", at="/api", api=describe(self.name, self.labels))

  async def openapi(self, request: Request) -> Response:
    return JSONResponse(describe(self.name, self.labels))

  async def login_page(self, request: Request) -> Response:
    return self._page("login", at="", wrong="wrong" in request.query_params)

  async def log_in(self, request: Request) -> Response:
    """Takes the token; gives a cookie for it."""
    body = await self.bodies.read(request)
    if isinstance(body, Response):
      return body
    if not self.access.is_token(body.decode(errors="replace")):
      return refused(InputError("this is not the token."), 401)
    answer = JSONResponse({})
    answer.set_cookie(COOKIE, self.access.cookie, httponly=True, samesite="strict")
    return answer

  async def status(self, request: Request) -> Response:
    return JSONResponse(rest.status())

  async def health(self, request: Request) -> Response:
    return PlainTextResponse("ok\n")

  async def metrics(self, request: Request) -> Response:
    return PlainTextResponse(exposition(self._samples(), _METRICS), media_type="text/plain; version=0.0.4")

  def _samples(self) -> Iterator[Sample]:
    for (method, status), count in sorted(self.requests.items()):
      yield "serve_requests_total", {"method": method, "status": str(status)}, count
    for reason, count in sorted(self.faults.items()):
      yield "serve_bad_images_total", {"reason": reason}, count
    yield "serve_images_total", {}, self.batches.images
    yield "serve_batches_total", {}, self.batches.batches
    yield "serve_waiting_images", {}, self.batches.waiting
