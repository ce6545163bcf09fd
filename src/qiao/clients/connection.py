"""Where a client finds the gateway and what it will find there: the facts that every setting is made from."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from qiao.config import Config
from qiao.errors import ConfigurationError
from qiao.ledger.keys import stored_key
from qiao.ledger.running import Running, client_url
from qiao.options import Secret
from qiao.upstream.gateway import GatewayClient, ModelFacts

NO_KEY = "no-key-needed"
"""Shown to a gateway that asks for none: clients refuse to start without any."""


class Door(msgspec.Struct, frozen=True):
    """A gateway's address for clients (without /v1), and its key; None where it asks for none."""

    url: str
    key: Secret | None
    small: str | None = None
    subagent: str | None = None

    @property
    def is_local(self) -> bool:
        """The gateway is on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")


class Connection(msgspec.Struct, frozen=True):
    """A gateway that answers, and the models to use there.

    `window` (prompt and answer) and `output_limit` are the main model's, in tokens; None: the gateway does not say.
    `is_anthropic`: it lists its models as Anthropic's API does; an engine does not, some gateways neither.
    """

    url: str
    key: Secret | None
    model: str
    small: str
    subagent: str
    window: int | None = None
    output_limit: int | None = None
    is_anthropic: bool = True

    @property
    def token(self) -> str:
        """What to show as the key."""
        return self.key.reveal() if self.key else NO_KEY

    @property
    def host(self) -> str:
        """The gateway's host name or address, without port."""
        return urlsplit(self.url).hostname or ""


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_door(config: Config, running: Sequence[Running]) -> Door:
    """The gateway to use: the one named, else the one that runs here and was started last, else the configured port.

    The stored key is for this machine's gateway: it is never shown to another one.
    """
    if config.client.url is not None:
        same = next((each for each in running if each.url == config.client.url), None)
        if same is not None:
            return Door(same.url, config.auth.api_key or same.key, same.small, same.subagent)
        door = Door(config.client.url, None)
        return msgspec.structs.replace(door, key=_key(config, door))
    if running:
        first = running[0]
        return Door(first.url, config.auth.api_key or first.key, first.small, first.subagent)
    door = Door(client_url(config.server.host, config.server.port or 4000), None)
    return msgspec.structs.replace(door, key=_key(config, door))


def _key(config: Config, door: Door) -> Secret | None:
    if config.auth.no_auth:
        return None
    if config.auth.api_key is not None:
        return config.auth.api_key
    if door.is_local:
        kept = stored_key(config.folders.state)
        return kept.secret if kept else None
    raise ConfigurationError(
        f"The gateway at {door.url} is on another machine, and no key for it is set.",
        hint="Set QIAO_API_KEY to its key (`qiao key` prints it there), or give --no-auth if it asks for none.",
    )


async def connect(door: Door) -> Connection:
    """Ask the gateway what it serves. Raises `UpstreamError` when it does not answer."""
    async with GatewayClient(door.url, door.key) as gateway:
        models = await gateway.models()
    return connection(door, models)


def connection(door: Door, models: Sequence[ModelFacts]) -> Connection:
    """The connection to a gateway that lists `models`, the main one first."""
    main = models[0]
    return Connection(
        url=door.url,
        key=door.key,
        model=main.id,
        small=door.small or main.id,
        subagent=door.subagent or main.id,
        window=main.window,
        output_limit=main.output_limit,
        is_anthropic=main.is_anthropic,
    )
