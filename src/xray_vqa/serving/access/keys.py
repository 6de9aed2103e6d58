"""API keys: made once, shown once, and from then on known by their SHA-256.

A key is `xvqa_<id>_<secret>`. The id is public: it finds the key and stands in lists and records. The secret has 256
random bits, so its plain hash cannot be guessed and needs neither salt nor a slow function.

What happens to a key is a record like any other, added and never changed; what it is now follows from its records.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from xray_vqa.core.records import Strict
from xray_vqa.serving.access.roles import Permission, Principal, Role, permissions_of

PREFIX = "xvqa_"
_KEY = re.compile(r"xvqa_([0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)
_NOBODYS_DIGEST = "0" * 64


class ApiKey(Strict):
    """What is kept of a key. The key itself is nowhere but with its holder."""

    key_id: str
    digest: str
    """SHA-256 of the whole key, in hex."""
    name: str
    """What it was made for, in the words of who made it."""
    role: Role
    scopes: tuple[Permission, ...] | None
    """Narrows what the role may do; None: all of it."""
    lanes: tuple[str, ...] | None
    """The lanes that it may speak for; None: every one."""
    made_at: AwareDatetime
    expires_at: AwareDatetime
    replaces: str | None = None
    """The id of the key that it was made in place of."""
    revoked_at: AwareDatetime | None = None

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        """Return whether it opens anything at a moment, and why not."""
        if self.revoked_at:
            return "revoked"
        return "valid" if now < self.expires_at else "expired"

    def principal(self) -> Principal:
        """Return who holds it."""
        lanes = None if self.lanes is None else frozenset(self.lanes)
        return Principal(f"key:{self.key_id}", permissions_of([self.role], self.scopes), lanes)


class KeyMade(Strict):
    """A key was made."""

    event: Literal["made"] = "made"
    key: ApiKey


class KeyEnds(Strict):
    """A key was given another end: now, or after the time that its successor needs to be put in its place."""

    event: Literal["ends"] = "ends"
    key_id: str
    at: AwareDatetime
    revoked: bool
    reason: str


KeyEvent = Annotated[KeyMade | KeyEnds, Field(discriminator="event")]


def keys_after(events: Iterable[KeyEvent]) -> dict[str, ApiKey]:
    """Return the keys by id as they are after what happened to them. An end can only be moved nearer."""
    keys: dict[str, ApiKey] = {}
    for event in events:
        if isinstance(event, KeyMade):
            keys.setdefault(event.key.key_id, event.key)
        elif key := keys.get(event.key_id):
            change = {"revoked_at": event.at} if event.revoked else {"expires_at": min(event.at, key.expires_at)}
            keys[event.key_id] = key.model_copy(update=change)
    return keys


def new_secret() -> tuple[str, str]:
    """Return a new key's id, and the key."""
    key_id = secrets.token_hex(6)
    return key_id, f"{PREFIX}{key_id}_{secrets.token_hex(32)}"


def digest_of(key: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def id_of(text: str) -> str | None:
    """Return the id in a text that has a key's form, else None."""
    match = _KEY.fullmatch(text)
    return match[1] if match else None


def fits(text: str, key: ApiKey | None) -> bool:
    """Return whether a text is a key, in the same time for every text. Without a key nothing fits."""
    expected = key.digest if key else _NOBODYS_DIGEST
    return hmac.compare_digest(digest_of(text), expected) and key is not None
