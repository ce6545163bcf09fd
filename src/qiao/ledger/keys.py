"""The gateway's key: made on first run, kept in a file that only its owner reads, compared in constant time.

`admit` decides whether a configuration may be served at all: whoever reaches the gateway can make a model run
commands on the machines of its users, so an address that others reach needs a key that nobody guesses.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec

from qiao.config import Config, Origin
from qiao.errors import ConfigurationError
from qiao.ledger.files import create_private, tighten, write_private
from qiao.options import Secret

FILE_NAME = "key"
PREFIX = "sk-qiao-"


class KeyRing:
    """The keys that open the gateway. Without any key every request is let in (`--no-auth`)."""

    __slots__ = ("_digests",)

    def __init__(self, keys: Iterable[Secret]) -> None:
        self._digests = tuple(_digest(key.reveal()) for key in keys)

    def __repr__(self) -> str:
        return f"KeyRing({len(self._digests)} keys)"

    @property
    def is_open(self) -> bool:
        """No key is asked for."""
        return not self._digests

    def accepts(self, x_api_key: str | None, authorization: str | None) -> bool:
        """Whether one of the two headers shows a valid key.

        Clients send `x-api-key`, `Authorization: Bearer`, or both, and then not always the same key in both, so
        either suffices. Takes as long for a wrong key as for a right one.
        """
        if self.is_open:
            return True
        shown = [_digest(candidate) for candidate in _shown(x_api_key, authorization)]
        matches = [hmac.compare_digest(candidate, digest) for candidate in shown for digest in self._digests]
        return any(matches)

    def tenant(self, x_api_key: str | None, authorization: str | None) -> str:
        """One word for each key, from which the key cannot be read: whose request it is.

        Of two keys the valid one counts. Where no key is asked for, whatever is shown tells clients apart.
        """
        if x_api_key is None and authorization is None:
            return ""
        shown = [_digest(candidate) for candidate in _shown(x_api_key, authorization)]
        valid = [digest for digest in shown if self.is_open or digest in self._digests]
        return valid[0].hex() if valid else ""


def _shown(x_api_key: str | None, authorization: str | None) -> list[str]:
    shown = [x_api_key] if x_api_key is not None else []
    scheme, _, token = (authorization or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        shown.append(token.strip())
    return shown


class StoredKey(msgspec.Struct, frozen=True):
    """The key in the state folder. `created`: just now. `was_readable`: others could read it until now."""

    secret: Secret
    path: Path
    created: bool = False
    was_readable: bool = False


def generate() -> Secret:
    """A key of 256 random bits."""
    return Secret(PREFIX + secrets.token_urlsafe(32))


def stored_key(folder: Path) -> StoredKey | None:
    """The key kept in `folder`, if there is one."""
    path = folder / FILE_NAME
    try:
        text = path.read_text("utf-8").strip()
        was_readable = tighten(path)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigurationError(
            f"The key file {path} cannot be read: {problem}.", hint="Give it to this user, or delete it."
        ) from None
    if not text or any(character.isspace() or not character.isprintable() for character in text):
        raise ConfigurationError(f"The key file {path} holds no key.", hint="`qiao key --new` writes a new one.")
    return StoredKey(Secret(text), path, was_readable=was_readable)


def load_or_create(folder: Path) -> StoredKey:
    """The key kept in `folder`; made now if there is none. Two processes that start at once get the same one."""
    found = stored_key(folder)
    if found is not None:
        return found
    key, path = generate(), folder / FILE_NAME
    if create_private(path, key.reveal() + "\n"):
        return StoredKey(key, path, created=True)
    return stored_key(folder) or load_or_create(folder)


def rotate(folder: Path) -> StoredKey:
    """A new key in the place of the old one. A gateway that runs keeps the old one until it is started again."""
    key, path = generate(), folder / FILE_NAME
    write_private(path, key.reveal() + "\n")
    return StoredKey(key, path, created=True)


def admit(config: Config) -> Config:
    """The configuration with its key decided, or a ConfigurationError that says why it may not be served so."""
    host = config.server.host
    if config.auth.no_auth:
        if not config.server.is_loopback:
            raise ConfigurationError(
                f"{config.origin('auth.no_auth')} lets everybody in who can reach {host}, "
                "and that is more than this machine.",
                hint="Keep the key, or listen on 127.0.0.1.",
            )
        return config
    if config.auth.api_key is None:
        kept = load_or_create(config.folders.state)
        config = config.replace("auth.api_key", kept.secret, Origin("state", str(kept.path)))
        if kept.was_readable:
            note = f"{kept.path} was readable by others; it no longer is. `qiao key --new` makes a fresh key."
            config = msgspec.structs.replace(config, warnings=(*config.warnings, note))
    assert config.auth.api_key is not None
    weak = None if config.server.is_loopback else weakness(config.auth.api_key.reveal())
    if weak:
        origin = config.origin("auth.api_key")
        raise ConfigurationError(
            f"{host} is reachable from outside, and the key from {origin} {weak}.",
            hint=f"Leave {origin} away to use the generated key: `qiao key` prints it, `qiao key --new` makes another.",
        )
    return config


# Keys that guides and samples of gateways, engines and clients print.
_SAMPLES = frozenset(
    [
        *("1234", "12345", "empty", "none", "null", "no-key", "nokey", "not-needed", "notneeded", "dummy", "fake"),
        *("test", "token-abc123", "abc123", "changeme", "change-me", "secret", "password", "admin", "master-key"),
        *("masterkey", "your-api-key", "your_api_key", "yourapikey", "xxx", "xxxx", "key", "apikey", "api-key"),
        *("anything", "ollama", "lm-studio", "litellm", "vllm", "local"),
    ]
)
_WORDS = re.compile(
    r"pass(word|phrase)?|secret|admin|master|default|example|sample|change|me|please|test(ing)?|demo|dummy|fake|local|"
    r"host|token|api|key|your|my|the|sk|ant|litellm|vllm|ollama|openai|anthropic|claude|code|qwen\d*|qiao|gateway|model|"
    r"qwerty|asdf|letmein|welcome|hello|world|abc(def)?|user|root|server|proxy|dev|prod|private|public|company|team"
)
_PREFIXES = re.compile(r"^(sk|key|token|api)[-_]", re.IGNORECASE)


def weakness(key: str) -> str | None:
    """Why `key` is too weak for an address that others reach, as the end of a sentence; None if it is not."""
    bare = _PREFIXES.sub("", key)
    if key.lower() in _SAMPLES or bare.lower() in _SAMPLES:
        return "is a sample that guides print, so everybody knows it"
    if len(bare) < 16:
        return f"has only {len(bare)} characters to guess, and 16 are the least"
    left = re.sub(r"[\W_]", "", _WORDS.sub("", _without_runs(bare.lower())))
    if len(set(left)) < 6:
        return "is made of words, repetitions or sequences that can be guessed"
    return None


def _without_runs(text: str) -> str:
    """`text` without characters that continue a run (aaaa, 1234, fedc): they add nothing to guess."""
    steps = [ord(after) - ord(before) for before, after in itertools.pairwise(text)]
    kept = [
        character
        for place, character in enumerate(text)
        if place < 2 or steps[place - 1] != steps[place - 2] or abs(steps[place - 1]) > 1
    ]
    return "".join(kept)


def _digest(text: str) -> bytes:
    # Digests are equally long, so the comparison tells nothing about the length of the key either.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
