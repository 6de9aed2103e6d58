"""API keys: made once, shown once, and from then on known by their SHA-256.

A key is `xvqa_<id>_<secret>`. The id is public: it finds the key's row and stands in lists and records. The secret has
256 random bits, so its plain hash cannot be guessed and needs neither salt nor a slow function.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from xray_vqa.serving.access.roles import Permission, Principal, Role, permissions_of

PREFIX = "xvqa_"
_KEY = re.compile(r"xvqa_([0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)
_NOBODYS_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class ApiKey:
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
    """None: every lane."""
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Return whether it opens anything at a moment."""
        return self.revoked_at is None and now < self.expires_at

    def principal(self) -> Principal:
        """Return who holds it."""
        lanes = None if self.lanes is None else frozenset(self.lanes)
        return Principal(f"key:{self.key_id}", permissions_of([self.role], self.scopes), lanes)


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
