"""Who may ask, from where, how much and for how long.

A page of another site cannot ask: a `Host` that is a name of somebody else's is refused (DNS rebinding), and so is an
`Origin` other than the host, and what a browser calls cross-site. Without a token the server listens on loopback alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import socket
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.exit_codes import error_line

MAX_BODY_BYTES = 1 << 25
MAX_BODIES_BYTES = 1 << 28  # of all requests together
MAX_PATH = 1_000
BODY_SECS = 30.0
REQUEST_SECS = 120.0
COOKIE = "beam-retrain"
_OPEN = ("/healthz", "/login")
_PAGE_POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
  " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
  "Content-Security-Policy": _PAGE_POLICY,
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cache-Control": "no-store",
}


class Access:
  """Lets anyone on this machine ask, or who has the token."""

  def __init__(self, host: str, token: str | None):
    self._token = token
    self._key = secrets.token_bytes(32)  # of this process: a cookie dies with it
    self._is_loopback = is_loopback(host)
    self._names = {"localhost"} if self._is_loopback else {"localhost", host.lower(), socket.gethostname().lower()}

  @property
  def cookie(self) -> str:
    return hmac.new(self._key, (self._token or "").encode(), hashlib.sha256).hexdigest()

  def is_token(self, given: str) -> bool:
    return self._token is None or hmac.compare_digest(given.encode(), self._token.encode())

  def refuse(self, headers: Headers, path: str, method: str) -> Response | None:
    """Returns the answer to a request that may not pass."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if len(path) > MAX_PATH:
      return _error(404, "there is no such address.")
    if not self._is_ours(host):
      return _error(421, "the Host is not this server's: open the address that it printed.")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
      return _error(403, "pages of other sites may not ask.")
    from_elsewhere = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if from_elsewhere and (method != "GET" or headers.get("sec-fetch-mode") != "navigate"):
      return _error(403, "pages of other sites may not ask.")
    if self._token is None or path in _OPEN or path.startswith("/static/") or self._has_token(headers):
      return None
    if "text/html" in headers.get("accept", ""):
      return RedirectResponse("/login", 303)
    return _error(401, "send the token: Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"})

  def _has_token(self, headers: Headers) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
      return self.is_token(given.strip())
    return hmac.compare_digest(cookie_parser(headers.get("cookie", "")).get(COOKIE, "").encode(), self.cookie.encode())

  def _is_ours(self, host: str) -> bool:
    """Whether a host is no foreign name that leads here."""
    try:
      name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
      return False
    try:
      address = ipaddress.ip_address(name)
    except ValueError:
      return name in self._names
    return address.is_loopback or not self._is_loopback


def is_loopback(host: str) -> bool:
  try:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
  return JSONResponse({"error": message}, status, headers)


class Guard:
  """Lets requests pass, adds headers, and turns errors into answers."""

  def __init__(self, app: ASGIApp, access: Access, count: Callable[[str, int], None]):
    self._app, self._access, self._count = app, access, count

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      return
    status = 0

    async def with_headers(message: Message) -> None:
      nonlocal status
      if message["type"] == "http.response.start":
        status = message["status"]
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers.setdefault(name, value)
      await send(message)

    try:
      refused = self._access.refuse(Headers(scope=scope), scope["path"], scope["method"])
      async with asyncio.timeout(REQUEST_SECS):
        await (refused or self._app)(scope, receive, with_headers)
    except Exception as error:  # no client sees a traceback, and none ends the server
      if not isinstance(error, TimeoutError | ClientDisconnect):
        print(f"beam-retrain: {scope['method']} {scope['path']} failed: {error_line(error)}", file=sys.stderr)
      if not status:
        await _error(500, "the server failed; its terminal says why.")(scope, receive, with_headers)
    finally:
      self._count(scope["method"], status)


class Bodies:
  """Reads bodies of requests, bounded each and together, before they are parsed."""

  def __init__(self) -> None:
    self._held = 0

  async def read(self, request: Request) -> bytes | Response:
    """Returns the body, or the answer to a large or slow one."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
      return _too_large()
    body = bytearray()
    try:
      async with asyncio.timeout(BODY_SECS):
        async for chunk in request.stream():
          body += chunk
          self._held += len(chunk)
          if len(body) > MAX_BODY_BYTES:
            return _too_large()
          if self._held > MAX_BODIES_BYTES:
            return busy()
    except TimeoutError:
      return _error(408, f"the body took more than {BODY_SECS:.0f} seconds.", {"Connection": "close"})
    finally:
      self._held -= len(body)
    return bytes(body)


def _too_large() -> Response:
  return _error(413, f"a body has at most {MAX_BODY_BYTES} bytes.", {"Connection": "close"})


def busy() -> Response:
  """Returns the answer while too much waits."""
  return _error(503, "too many images wait: ask again in a second.", {"Retry-After": "1"})


def refused(error: Exception, status: int = 400) -> Response:
  return _error(status, str(error))
