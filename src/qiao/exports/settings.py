"""What an export needs to know beside the plan. Values only."""

from __future__ import annotations

import msgspec

from qiao import __version__
from qiao.planner.plan import PORT


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Names and ports in the files.

    * `engine_port`, `gateway_port`: where the engine and the gateway listen.
    * `engine_image`: container image of the engine; None: the official one of the plan's version.
    * `gateway_image`: container image of the gateway, built from the gateway.Dockerfile that is written beside.
    * `name`: the name of services, deployments and units.
    """

    engine_port: int = PORT
    gateway_port: int = 4000
    engine_image: str | None = None
    gateway_image: str = f"qiao:{__version__}"
    name: str = "qiao"
