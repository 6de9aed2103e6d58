"""Who may do what, in two tables: what each role may do, and what each address needs.

An address or a method that stands in no line of `ROUTES` is answered by nobody. A new route gets a line here, or it
does not exist.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from xray_vqa.serving.store.records import OPEN

LANE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class Role(StrEnum):
    """What somebody is at a checkpoint."""

    LANE = "lane"
    OFFICER = "officer"
    SUPERVISOR = "supervisor"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Permission(StrEnum):
    """One thing that a role may do; a key can be narrowed to some of its role's by `--scope`."""

    INSPECT = "inspect"
    ASK = "ask"
    READ = "read"
    FEEDBACK = "feedback"
    OVERRIDE = "override"
    STOP = "stop"
    DESCRIBE = "describe"
    METRICS = "metrics"


_LANE, _OFFICER, _SUPERVISOR, _AUDITOR, _ADMIN = Role

MAY: Mapping[Permission, frozenset[Role]] = {
    Permission.INSPECT:  frozenset({_LANE, _OFFICER, _SUPERVISOR}),
    Permission.ASK:      frozenset({       _OFFICER, _SUPERVISOR}),
    Permission.READ:     frozenset({       _OFFICER, _SUPERVISOR, _AUDITOR}),
    Permission.FEEDBACK: frozenset({       _OFFICER, _SUPERVISOR}),
    Permission.OVERRIDE: frozenset({                 _SUPERVISOR}),
    Permission.STOP:     frozenset({                 _SUPERVISOR}),
    Permission.DESCRIBE: frozenset({_LANE, _OFFICER, _SUPERVISOR, _AUDITOR, _ADMIN}),
    Permission.METRICS:  frozenset({                 _SUPERVISOR, _AUDITOR, _ADMIN}),
}  # fmt: skip
"""Keys are made and revoked on the command line alone, by who may write the store: no role can do it over HTTP."""

ROUTES: Mapping[tuple[str, str], Permission | None] = {
    ("GET",  "/health"):                                None,
    ("GET",  "/ready"):                                 None,
    ("GET",  "/metrics"):                               Permission.METRICS,
    ("GET",  "/docs"):                                  Permission.DESCRIBE,
    ("GET",  "/docs/start.js"):                         Permission.DESCRIBE,
    ("GET",  "/docs/swagger-ui-bundle.js"):             Permission.DESCRIBE,
    ("GET",  "/docs/swagger-ui.css"):                   Permission.DESCRIBE,
    ("GET",  "/openapi.json"):                          Permission.DESCRIBE,
    ("POST", "/api/v1/inspect"):                        Permission.INSPECT,
    ("POST", "/api/v1/ask"):                            Permission.ASK,
    ("GET",  "/api/v1/inspections"):                    Permission.READ,
    ("GET",  "/api/v1/inspections/{scan_id}"):          Permission.READ,
    ("GET",  "/api/v1/inspections/{scan_id}/image"):    Permission.READ,
    ("GET",  "/api/v1/figures"):                        Permission.READ,
    ("GET",  "/api/v1/declarable"):                     Permission.DESCRIBE,
    ("GET",  "/api/v1/inspections/{scan_id}/oversight"): Permission.READ,
    ("POST", "/api/v1/inspections/{scan_id}/override"): Permission.OVERRIDE,
    ("POST", "/api/v1/inspections/{scan_id}/feedback"): Permission.FEEDBACK,
    ("GET",  "/api/v1/stop"):                           Permission.DESCRIBE,
    ("POST", "/api/v1/stop"):                           Permission.STOP,
    ("POST", "/api/v1/resume"):                         Permission.STOP,
    ("GET",  "/api/v1/policies"):                       Permission.DESCRIBE,
    ("GET",  "/api/v1/models"):                         Permission.DESCRIBE,
}  # fmt: skip
"""By method and path; None: anyone, without credentials."""


def permissions_of(roles: Iterable[Role], scopes: Iterable[Permission] | None = None) -> frozenset[Permission]:
    """Return what some roles may do together, narrowed to the scopes where there are any."""
    allowed = frozenset(permission for permission, holders in MAY.items() if holders.intersection(roles))
    return allowed if scopes is None else allowed.intersection(scopes)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, and what it may do."""

    name: str
    """`key:` with the key's id, `oidc:` with the token's subject, or `open`. Stands in records; no secret."""
    permissions: frozenset[Permission]
    lanes: frozenset[str] | None = None
    """The lanes that it may speak for; None: every one."""


class Refused(Exception):
    """Credentials that do not hold. The text is for the log: a caller learns that they do not, and not why."""

    def __init__(self, reason: str, *, given: bool = True) -> None:
        super().__init__(reason)
        self.given = given
        """Whether there were any."""


ANONYMOUS = Principal(OPEN, frozenset(Permission))
"""Whoever asks a server that runs open, which one on this machine alone can."""
