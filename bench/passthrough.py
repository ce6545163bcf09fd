"""The yardstick: an aiohttp server that passes bytes through to the upstream and understands none of them.

    python -m bench.passthrough --upstream http://127.0.0.1:9000/v1

It prints its port. Whatever a gateway on aiohttp costs beyond this, it costs for understanding.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

import aiohttp
from aiohttp import web

from qiao.app.loop import run


async def serve(upstream: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if request.path == "/healthz":
                return web.Response(text="ok")
            body = await request.read()
            async with session.post(f"{upstream}/chat/completions", data=body) as answer:
                if "event-stream" not in answer.headers["content-type"]:
                    return web.Response(body=await answer.read(), content_type="application/json")
                response = web.StreamResponse(headers={"content-type": "text/event-stream"})
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):  # the measuring client leaves in the middle
                    async for data in answer.content.iter_any():
                        await response.write(data)
                    await response.write_eof()
                return response

        runner = web.ServerRunner(web.Server(handle, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True)
    run(serve(parser.parse_args().upstream))


if __name__ == "__main__":
    main()
