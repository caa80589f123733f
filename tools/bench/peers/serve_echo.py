"""The floor: parse a body, answer an object. What any service under uvicorn and orjson pays at least. `python serve_echo.py PORT`."""

from __future__ import annotations

import sys
from typing import Any

import orjson
import uvicorn

ANSWER = {
    "data": {"predict": {"id": "0193a2f4-6d1c-7c3e-9b5a-0f1e2d3c4b5a", "label": "True", "probability": 0.7310585786300049, "version": 1}}
}


async def app(_scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    orjson.loads(body)
    answer = orjson.dumps(ANSWER)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )
