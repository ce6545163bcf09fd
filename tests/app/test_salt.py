"""The part of the engine's prefix cache that belongs to one key."""

from __future__ import annotations

import json

import msgspec
import pytest

from qiao.app.gateway import salted
from qiao.core.conversation import Conversation, Text, Turn
from qiao.core.openai.request import encode, encode_tokenize
from qiao.core.openai.target import Flavor
from qiao.ledger.keys import KeyRing
from qiao.options import Secret
from qiao.profiles.engines import target_for

ASKED = Conversation(model="m", turns=(Turn("user", (Text("go"),)),), max_tokens=9)
SECRET = Secret("a secret of the operator")
VLLM = target_for("vllm", "0.32.0", "m")


def salt_of(tenant: str, secret: Secret = SECRET) -> str:
    salt = json.loads(encode(salted(ASKED, tenant, secret), VLLM))["cache_salt"]
    assert isinstance(salt, str)
    return salt


def test_it_is_the_same_for_the_same_key_and_secret_only() -> None:
    assert salt_of("one") == salt_of("one")
    assert len({salt_of("one"), salt_of("another"), salt_of("one", Secret("other")), salt_of("")}) == 4
    assert len(salt_of("one")) == 32


def test_a_client_cannot_choose_anothers() -> None:
    own = msgspec.structs.replace(ASKED, extras={"cache_salt": msgspec.Raw(b'"mine"')})
    body = json.loads(encode(salted(own, "one", SECRET), VLLM))
    assert body["cache_salt"] == salt_of("one")


@pytest.mark.parametrize(
    ("flavor", "takes"), [("vllm", True), ("sglang", True), ("llamacpp", False), ("openai", False)]
)
def test_only_engines_that_take_it_get_it(flavor: Flavor, takes: bool) -> None:
    target = target_for(flavor, None, "m")
    assert ("cache_salt" in json.loads(encode(salted(ASKED, "one", SECRET), target))) is takes
    assert "cache_salt" not in json.loads(encode_tokenize(salted(ASKED, "one", SECRET), target))


def test_a_tenant_is_the_key_that_opened() -> None:
    ring = KeyRing([Secret("first"), Secret("second")])
    assert ring.tenant("first", None) == ring.tenant(None, "Bearer first") == ring.tenant("wrong", "bearer first")
    assert ring.tenant("first", None) != ring.tenant("second", None)
    assert "first" not in ring.tenant("first", None)
    assert ring.tenant("wrong", None) == ""
    everybody = KeyRing([])
    assert everybody.tenant("a", None) != everybody.tenant("b", None)
    assert everybody.tenant(None, None) == ""
