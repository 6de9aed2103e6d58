"""Keys in the store: made, ended, listed. Blocking; whoever may write the store may make keys."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from xray_vqa.errors import ConfigError
from xray_vqa.serving.access.keys import ApiKey, KeyEnds, KeyEvent, KeyMade, digest_of, keys_after, new_secret
from xray_vqa.serving.access.roles import MAY, Permission, Role
from xray_vqa.serving.store.audit import AuditStore

KIND = "api_key"
"""Of the records in which the store holds what happened to keys."""

_TIMEOUT_S = 30.0
_EVENT: TypeAdapter[Any] = TypeAdapter(KeyEvent)


class KeyStore:
    """The keys of one store. Every method raises AuditUnavailable where the store cannot be used."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    def keys(self) -> dict[str, ApiKey]:
        """Return all keys by id, in the order in which they were made; those that no longer open anything too."""
        return keys_after(_EVENT.validate_python(row.record()) for row in self._store.read(KIND))

    def make(
        self,
        name: str,
        role: Role,
        *,
        lanes: Sequence[str] | None = None,
        scopes: Sequence[Permission] | None = None,
        lasts: timedelta,
        replaces: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key. Returns what is kept of it, and the key, which nobody can tell again.

        Raises:
            ConfigError: A scope is nothing that the role may do, or a lane's key is bound to no lane.
        """
        foreign = [scope.value for scope in scopes or () if role not in MAY[scope]]
        if foreign:
            able = ", ".join(permission.value for permission, roles in MAY.items() if role in roles)
            raise ConfigError(f"the role {role.value} has no {', '.join(foreign)}; its scopes are {able}")
        if role is Role.LANE and not lanes:
            raise ConfigError("a key of the role lane is bound to lanes; name one with --lane")
        key_id, text = new_secret()
        now = datetime.now(UTC)
        key = ApiKey(
            key_id=key_id,
            digest=digest_of(text),
            name=name,
            role=role,
            scopes=tuple(scopes) if scopes else None,
            lanes=tuple(lanes) if lanes else None,
            made_at=now,
            expires_at=now + lasts,
            replaces=replaces,
        )
        self._add(KeyMade(key=key))
        return key, text

    def revoke(self, key_id: str, reason: str) -> ApiKey:
        """End a key now. Returns it as it was. Raises ConfigError where it is not known or no longer valid."""
        key = self._valid(key_id)
        self._add(KeyEnds(key_id=key_id, at=datetime.now(UTC), revoked=True, reason=reason))
        return key

    def rotate(self, key_id: str, *, lasts: timedelta, overlap: timedelta) -> tuple[ApiKey, str]:
        """Make a key in place of another, which ends after an overlap. Returns as `make`, raises as `revoke`."""
        old = self._valid(key_id)
        made = self.make(old.name, old.role, lanes=old.lanes, scopes=old.scopes, lasts=lasts, replaces=key_id)
        ends_at = datetime.now(UTC) + overlap
        self._add(KeyEnds(key_id=key_id, at=ends_at, revoked=False, reason=f"replaced by {made[0].key_id}"))
        return made

    def _valid(self, key_id: str) -> ApiKey:
        key = self.keys().get(key_id)
        if key is None:
            raise ConfigError(f"the store has no key {key_id!r}; `xray-vqa keys list` names them")
        state = key.state(datetime.now(UTC))
        if state != "valid":
            raise ConfigError(f"the key {key_id} is {state} already")
        return key

    def _add(self, event: KeyMade | KeyEnds) -> None:
        self._store.add(KIND, event).result(_TIMEOUT_S)
