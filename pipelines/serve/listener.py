"""The HTTP server: uvicorn, which a silent client cannot keep."""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from beam_retrain.transforms.core.errors import InputError

IDLE_SECS, BUSY_SECS = 10.0, 180.0  # how long a connection may have no request, and the same one
DRAIN_SECS = 30
MAX_CONNECTIONS = 512


class Connection(H11Protocol):
  """A connection that ends when it waits for its client too long.

  Where there are too many, the one that has waited longest ends.
  """

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    super().connection_made(transport)
    self._since = self.loop.time()
    self._look(None)
    if len(self.connections) > MAX_CONNECTIONS:
      waiting = [
        one for one in self.connections if isinstance(one, Connection) and (one.is_idle or one.cycle.more_body)
      ]
      min(waiting, key=lambda one: (not one.is_idle, one._since)).transport.abort()  # at least this one waits

  @property
  def is_idle(self) -> bool:
    """Whether no request has come, or the last has its answer."""
    return self.cycle is None or self.cycle.response_complete

  def _look(self, seen: object) -> None:
    if self.cycle is not seen:
      self._since = self.loop.time()
    if self.loop.time() - self._since >= (IDLE_SECS if self.is_idle else BUSY_SECS):
      self.transport.abort()
    elif self in self.connections:
      self.loop.call_later(IDLE_SECS, self._look, self.cycle)


def bind(host: str, port: int) -> socket.socket:
  """Returns a listening socket.

  Raises InputError if the address is not this machine's, or the port is taken.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
    listening.listen(MAX_CONNECTIONS)
  except OSError as error:
    raise InputError(
      f"port {port} of {host} cannot be used ({error.strerror}): give another --port, or another --host."
    ) from error
  return listening


def serve(app: ASGIApp, listening: socket.socket) -> None:
  """Answers until SIGTERM or Ctrl-C, then finishes what is there."""
  logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # each bad request would print a line
  config = uvicorn.Config(
    app,
    http=Connection,
    ws="none",
    lifespan="off",
    loop="asyncio",
    access_log=False,
    log_config=None,
    proxy_headers=False,
    server_header=False,
    timeout_graceful_shutdown=DRAIN_SECS,
  )
  uvicorn.Server(config).run([listening])
