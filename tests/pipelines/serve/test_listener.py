import asyncio

import pytest
import uvicorn
from uvicorn.server import ServerState

from beam_retrain.pipelines.serve import listener


async def app(scope, receive, send):
  while (await receive()).get("more_body"):
    pass
  await send({"type": "http.response.start", "status": 204, "headers": []})
  await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
  "sent",
  [
    b"",
    b"GET / HT",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
  ],
)
def test_a_connection_that_says_no_more_is_ended(sent, monkeypatch):
  monkeypatch.setattr(listener, "IDLE_SECS", 0.01)
  monkeypatch.setattr(listener, "BUSY_SECS", 0.02)

  async def until_ended() -> bytes:
    config = uvicorn.Config(app, http=listener.Connection, lifespan="off", ws="none", timeout_keep_alive=3600)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
      lambda: listener.Connection(config, state, {}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(sent)
    try:
      return await reader.read()
    except ConnectionError:
      return b""
    finally:
      writer.close()
      server.close()

  assert asyncio.run(asyncio.wait_for(until_ended(), 60)).startswith(
    b"HTTP/1.1 204 " if sent.count(b"GET") > 1 else b""
  )
