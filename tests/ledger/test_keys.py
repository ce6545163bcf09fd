"""The key's file and its modes, what opens the gateway, and which addresses may be served with which key."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.config import Auth, Config, Folders, Origin, Server
from qiao.errors import ConfigurationError
from qiao.ledger.keys import KeyRing, admit, generate, load_or_create, rotate, stored_key, weakness
from qiao.options import Secret


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "qiao"
    assert stored_key(folder) is None
    made = load_or_create(folder)
    again = load_or_create(folder)
    assert made.created
    assert not again.created
    assert made.secret == again.secret
    assert made.secret.reveal().startswith("sk-qiao-")
    assert weakness(made.secret.reveal()) is None
    assert (mode(made.path), mode(folder)) == (0o600, 0o700)
    assert [each.name for each in folder.iterdir()] == ["key"], "no temporary file is left"


def test_who_starts_at_once_gets_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        stored = list(pool.map(lambda _: load_or_create(tmp_path), range(16)))
    assert len({each.secret for each in stored}) == 1
    assert sum(each.created for each in stored) == 1


def test_a_key_that_others_could_read_is_closed_again(tmp_path: Path) -> None:
    path = load_or_create(tmp_path).path
    path.chmod(0o644)
    found = stored_key(tmp_path)
    assert found is not None
    assert found.was_readable
    assert mode(path) == 0o600


def test_rotation_replaces_the_key(tmp_path: Path) -> None:
    old = load_or_create(tmp_path).secret
    new = rotate(tmp_path)
    found = stored_key(tmp_path)
    assert found is not None
    assert found.secret == new.secret != old
    assert mode(new.path) == 0o600


@pytest.mark.parametrize("content", [b"", b"\n", b"two words\n", b"sk-\x00\n", b"\xff\xfe"])
def test_a_file_without_a_key_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigurationError, match=str(tmp_path / "key")):
        stored_key(tmp_path)


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        rotate(tmp_path / "file" / "state")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_or_create(tmp_path / "file" / "state")


RING = KeyRing([Secret("sk-right"), Secret("sk-other")])


@pytest.mark.parametrize(
    ("x_api_key", "authorization", "expected"),
    [
        (None, None, False),
        ("sk-right", None, True),
        ("sk-other", None, True),
        (None, "Bearer sk-right", True),
        (None, "bearer   sk-right ", True),
        ("sk-wrong", "Bearer sk-right", True),
        ("sk-right", "Bearer sk-wrong", True),
        ("sk-wrong", "Bearer sk-wrong", False),
        (None, "Basic sk-right", False),
        (None, "sk-right", False),
        (None, "Bearer", False),
        ("", "", False),
        ("sk-righ", None, False),
        ("sk-right ", None, False),
        ("sk-r\udcffght", None, False),
    ],
)
def test_either_header_opens(x_api_key: str | None, authorization: str | None, expected: bool) -> None:
    assert RING.accepts(x_api_key, authorization) is expected


def test_without_keys_everybody_comes_in() -> None:
    ring = KeyRing([])
    assert ring.is_open
    assert ring.accepts(None, None)
    assert not RING.is_open
    assert "sk-right" not in repr(RING)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("sk-1234", "sample"),
        ("SK-1234", "sample"),
        ("sk-empty", "sample"),
        ("EMPTY", "sample"),
        ("changeme", "sample"),
        ("token-abc123", "sample"),
        ("sk-hGf73k", "only 6 characters"),
        ("sk-1234567890abcdef", "guessed"),
        ("sk-aaaaaaaaaaaaaaaaaaaaaaaa", "guessed"),
        ("sk-password-password-123", "guessed"),
        ("my-company-claude-gateway-key", "guessed"),
        ("sk-fedcbafedcbafedcba9876", "guessed"),
    ],
)
def test_weak_keys(key: str, reason: str) -> None:
    assert reason in (weakness(key) or "")


@pytest.mark.parametrize(
    "key", ["0f8fad5b-d9cb-469f-a165-70867728950e", "sk-hV7qk2RzW9mTgX4bLs", "correct-horse-battery-staple"]
)
def test_good_keys(key: str) -> None:
    assert weakness(key) is None


def test_generated_keys_are_never_called_weak() -> None:
    assert [key for key in (generate().reveal() for _ in range(2000)) if weakness(key)] == []


@given(st.text(max_size=60))
def test_any_text_can_be_judged(key: str) -> None:
    verdict = weakness(key)
    assert verdict is None or verdict.split()[0] in ("is", "has")


def config(tmp_path: Path, host: str, *, key: str | None = None, no_auth: bool = False) -> Config:
    return msgspec.structs.replace(
        Config(),
        server=Server(host=host),
        auth=Auth(api_key=Secret(key) if key else None, no_auth=no_auth),
        folders=Folders(state=tmp_path),
        origins={"auth.api_key": Origin("flag", "--api-key"), "auth.no_auth": Origin("environment", "QIAO_NO_AUTH")},
    )


def test_the_stored_key_is_used_when_none_is_given(tmp_path: Path) -> None:
    admitted = admit(config(tmp_path, "0.0.0.0"))
    assert admitted.auth.api_key == load_or_create(tmp_path).secret
    assert str(admitted.origin("auth.api_key")) == str(tmp_path / "key")


def test_a_given_key_wins_and_none_is_stored(tmp_path: Path) -> None:
    assert admit(config(tmp_path, "127.0.0.1", key="sk-1234")).auth.api_key == Secret("sk-1234")
    assert list(tmp_path.iterdir()) == []


def test_a_weak_key_is_refused_where_others_reach(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        admit(config(tmp_path, "192.168.1.2", key="sk-1234"))
    assert raised.value.message == (
        "192.168.1.2 is reachable from outside, and the key from --api-key is a sample that guides print, "
        "so everybody knows it."
    )
    assert "qiao key" in (raised.value.hint or "")
    good = generate()
    assert admit(config(tmp_path, "192.168.1.2", key=good.reveal())).auth.api_key == good


def test_no_auth_only_on_loopback(tmp_path: Path) -> None:
    assert admit(config(tmp_path, "::1", no_auth=True)).auth.no_auth
    with pytest.raises(ConfigurationError, match=r"QIAO_NO_AUTH lets everybody in who can reach 0\.0\.0\.0"):
        admit(config(tmp_path, "0.0.0.0", no_auth=True))
    assert list(tmp_path.iterdir()) == [], "no key is made where none is asked for"


def test_the_key_is_private_under_any_umask(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from qiao.ledger.keys import load_or_create; "
        "os.umask(0); load_or_create(Path(sys.argv[1]) / 'state')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=30)
    assert mode(tmp_path / "state" / "key") == 0o600
    assert mode(tmp_path / "state") == 0o700
