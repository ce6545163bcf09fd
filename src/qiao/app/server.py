"""The HTTP server: the request boundary, and the life of a gateway from bind to the last answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, assert_never
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from qiao.app import routes
from qiao.app.answering import request_id_headers
from qiao.app.gateway import Context, Gateway, new_request_id, now
from qiao.app.recording import record_of
from qiao.core.anthropic import errors as anthropic_errors
from qiao.core.fault import Fault
from qiao.core.openai import errors as openai_errors

_log = logging.getLogger("qiao.app")


class _Protocol(RequestHandler):
    """aiohttp's protocol, with errors below the request boundary (bad HTTP, huge headers) in the client's shape."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        if status >= 500:
            _log.error("request failed below the boundary", exc_info=exc)
            fault = Fault("api", "the gateway failed; its log says why", party="ours")
        else:
            first_line = (message or "the request is no valid HTTP").strip().splitlines()[0][:200]
            fault = Fault("invalid_request", f"bad HTTP request: {first_line}")
        response = fault_response(fault, new_request_id(), request)
        response.force_close()
        return response


class _Server(web.Server):
    """aiohttp's low-level server making our protocol: routes are a dictionary, no application object is needed."""

    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class Boundary:
    """Every request comes in here and leaves with an answer, whatever happened. One of two broad excepts."""

    def __init__(self, gateway: Gateway, *, trusted_hosts: frozenset[str] | None) -> None:
        self._gateway = gateway
        self._trusted_hosts = trusted_hosts

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        gateway = self._gateway
        context = Context(request_id=new_request_id(), route="unknown", started=now())
        gateway.metrics.begin()
        response: web.StreamResponse | None = None
        try:
            response = await self._answer(request, context)
        except asyncio.CancelledError:
            context.status = 499
            raise
        except Fault as fault:
            context.fault = fault
            response = fault_response(fault, context.request_id, request)
        except ConnectionError:
            # The client went away while we wrote; there is nobody to answer.
            context.status = 499
            raise
        except Exception:  # noqa: BLE001 -- the request boundary
            _log.exception("request %s failed", context.request_id)
            context.fault = Fault("api", "the gateway failed; its log names the request", party="ours")
            if context.abort is not None:
                response = await context.abort(context.fault)
            if response is None:
                response = fault_response(context.fault, context.request_id, request)
        finally:
            if response is not None:
                context.status = response.status
            gateway.observe(record_of(context, request.headers))
        return response

    async def _answer(self, request: web.BaseRequest, context: Context) -> web.StreamResponse:
        route = routes.find(request.method, request.path)
        context.route = route.name
        self._check_host(request)
        if not route.is_open and not self._gateway.accepts(request.headers):
            raise Fault("authentication", _key_problem(request))
        response = await route.handler(request, self._gateway, context)
        if not response.prepared:
            response.headers.update(request_id_headers(context.request_id))
        return response

    def _check_host(self, request: web.BaseRequest) -> None:
        """Without a key, a web page could reach a loopback gateway through a name that resolves to it."""
        if self._trusted_hosts is None:
            return
        for name in ("Host", "Origin"):
            value = request.headers.get(name)
            if value is None:
                continue
            host = _host_of(value if name == "Origin" else f"//{value}")
            if host not in self._trusted_hosts and not _is_loopback(host):
                raise Fault(
                    "permission", f"{name}: {value[:200]!r} is not this gateway; without a key only loopback is"
                )


@lru_cache(64)
def _host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


@lru_cache(64)
def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _key_problem(request: web.BaseRequest) -> str:
    if routes.error_shape(request.method, request.path) == "openai":
        if "Authorization" in request.headers:
            return "Incorrect API key provided: this is not the gateway's key (`qiao key` prints it)."
        return "You didn't provide an API key: send the gateway's key as Authorization: Bearer (`qiao key` prints it)."
    if "x-api-key" in request.headers or "Authorization" in request.headers:
        return "invalid x-api-key: this is not the gateway's key (`qiao key` prints it)"
    return "x-api-key: no key was sent; send the gateway's key as x-api-key or as Authorization: Bearer"


def fault_response(fault: Fault, request_id: str, request: web.BaseRequest) -> web.Response:
    """A fault as an HTTP answer, in the shape of the protocol that the client speaks."""
    match routes.error_shape(request.method, request.path):
        case "openai":
            status, body = openai_errors.status(fault), openai_errors.body(fault)
        case "anthropic":
            status, body = anthropic_errors.status(fault), anthropic_errors.body(fault, request_id)
        case "both":
            own = openai_errors.error_object(fault)
            beside = {"code": own["code"], "param": own["param"]}
            status, body = anthropic_errors.status(fault), anthropic_errors.body(fault, request_id, beside)
        case never:
            assert_never(never)
    headers = request_id_headers(request_id)
    if fault.retry_after is not None:
        headers["retry-after"] = f"{max(1, round(fault.retry_after))}"
    return web.Response(
        status=status,
        body=b"" if request.method == "HEAD" else body,
        content_type="application/json",
        headers=headers,
    )


def create_server(gateway: Gateway, *, needs_key: bool, hosts: Iterable[str] = ()) -> web.Server:
    """The server for a gateway. `hosts`: names under which a gateway without a key may be called, beside loopback."""
    settings = gateway.settings
    boundary = Boundary(gateway, trusted_hosts=None if needs_key else frozenset(hosts))
    options: dict[str, Any] = {
        "handler_cancellation": True,
        "access_log": None,
        "keepalive_timeout": 75.0,
        "lingering_time": 1.0,
        # Bodies are decompressed in `body`, under the limit and with Anthropic's error codes.
        "auto_decompress": False,
        "max_line_size": settings.max_header,
        "max_field_size": settings.max_header,
    }
    return _Server(boundary, **options)


class Listening(msgspec.Struct):
    """A gateway that accepts connections. `await stop()` ends it; open answers get `grace` seconds."""

    host: str
    port: int
    runner: web.ServerRunner
    gateway: Gateway
    warm_up: asyncio.Task[None]

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def stop(self) -> None:
        self.warm_up.cancel()
        await self.runner.cleanup()
        await self.gateway.joining.close()
        await self.gateway.close()
        await self.gateway.upstream.close()


async def listen(gateway: Gateway, *, host: str, port: int, needs_key: bool, grace: float = 5.0) -> Listening:
    """Bind and accept. Raises `OSError` when the address cannot be bound."""
    runner = web.ServerRunner(create_server(gateway, needs_key=needs_key, hosts=[host]), shutdown_timeout=grace)
    await runner.setup()
    site = web.TCPSite(runner, host, port, reuse_address=True, backlog=512)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    bound = runner.addresses[0]
    # The first request shall not wait for the look at the upstream; /healthz does not wait for it at all.
    warm_up = asyncio.create_task(gateway.warm_up())
    return Listening(host=str(bound[0]), port=int(bound[1]), runner=runner, gateway=gateway, warm_up=warm_up)
