"""The gate in front of every address: who asks, how often, and whether they may. Nothing reaches a handler past it.

Credentials come before a body is read, and before anyone learns which addresses there are.
"""

import logging
import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from xray_vqa.serving.access.identity import Identity
from xray_vqa.serving.access.local import why_foreign
from xray_vqa.serving.access.rates import Rates
from xray_vqa.serving.access.roles import ANONYMOUS, LANE_NAME, ROUTES, Permission, Principal, Refused
from xray_vqa.serving.errors import Problem
from xray_vqa.serving.metrics import Metrics
from xray_vqa.serving.store.records import DEFAULT_LANE

logger = logging.getLogger(__name__)

_REALM = 'Bearer realm="xray-vqa"'


class AccessGate:
    """Middleware that lets a request pass or answers it. What passes has `principal` and `lane` in its state."""

    def __init__(self, app: ASGIApp, identity: Identity, rates: Rates, metrics: Metrics) -> None:
        self._app = app
        self._identity = identity
        self._rates = rates
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._admit(scope)
            except Problem as problem:
                self._metrics.refused.labels(problem.code).inc()
                await problem.response(scope["path"], scope["state"]["request_id"])(scope, receive, send)
                return
        elif scope["type"] != "lifespan":  # a websocket: no address of ours is one
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        """Raise Problem where a request may not pass."""
        headers = Headers(scope=scope)
        if self._identity.is_local and (reason := why_foreign(headers)):
            raise Problem("foreign_request", f"this server is for its own machine alone, and {reason}")
        if _is_public(scope):
            if not self._identity.is_local:
                await self._count_address(scope)
            return
        runs_open = await self._identity.runs_open()
        principal = ANONYMOUS if runs_open else await self._identify(scope, headers)
        needed = _permission_for(scope["method"], scope["path"])
        if needed not in principal.permissions:
            challenge = f'{_REALM}, error="insufficient_scope", scope="{needed}"'
            raise Problem(
                "forbidden", f"these credentials do not allow `{needed}`", headers={"WWW-Authenticate": challenge}
            )
        scope["state"]["principal"] = principal
        scope["state"]["lane"] = _lane_of(headers, principal, needed)

    async def _identify(self, scope: Scope, headers: Headers) -> Principal:
        try:
            principal = await self._identity.principal(headers.getlist("authorization"))
        except Refused as refused:
            logger.info("request %s refused: %s", scope["state"]["request_id"], refused)
            await self._count_address(scope)
            raise _problem_of(refused) from refused
        _check_wait(await self._rates.wait_of(principal))
        return principal

    async def _count_address(self, scope: Scope) -> None:
        client = scope.get("client")
        _check_wait(await self._rates.wait_of_address(client[0] if client else "unknown"))


def _check_wait(wait_s: int | None) -> None:
    if wait_s is not None:
        detail = f"more requests than the limit allows; the next one in {wait_s} s"
        raise Problem("too_often", detail, headers={"Retry-After": str(wait_s)})


def _problem_of(refused: Refused) -> Problem:
    # RFC 6750, 3.1: without credentials the challenge carries no error.
    if not refused.given:
        return Problem("unauthenticated", "there is no Authorization header", headers={"WWW-Authenticate": _REALM})
    return Problem(
        "invalid_credentials",
        "the key or token is not known here, has expired or was revoked",
        headers={"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
    )


_PUBLIC = frozenset((method, path.encode()) for (method, path), needed in ROUTES.items() if needed is None)


def _is_public(scope: Scope) -> bool:
    """Return whether it is one of the public addresses, letter for letter: another spelling of one is not."""
    return (scope["method"], scope.get("raw_path", b"").partition(b"?")[0]) in _PUBLIC


def _by_pattern() -> Mapping[re.Pattern[str], Mapping[str, Permission | None]]:
    methods: dict[str, dict[str, Permission | None]] = {}
    for (method, path), needed in ROUTES.items():
        methods.setdefault(path, {})[method] = needed
    return {compile_path(path)[0]: needed_by for path, needed_by in methods.items()}


_PATTERNS = _by_pattern()


def _permission_for(method: str, path: str) -> Permission:
    """Return what an address needs. Raises Problem where nothing is there, or not for this method."""
    for pattern, needed_by in _PATTERNS.items():
        if pattern.fullmatch(path):
            if needed := needed_by.get(method):
                return needed
            if method in needed_by:  # a public address in another spelling
                break
            allowed = ", ".join(sorted(needed_by))
            raise Problem("method_not_allowed", "the path does not take this method", headers={"Allow": allowed})
    raise Problem("not_found", "no route has this path")


def _lane_of(headers: Headers, principal: Principal, needed: Permission) -> str:
    """Return the lane that a request speaks for. Raises Problem where it may not, or has to say which."""
    named = headers.getlist("x-lane")
    if not named:
        if principal.lanes is None:
            return DEFAULT_LANE
        if len(principal.lanes) == 1:
            return next(iter(principal.lanes))
        if needed is Permission.INSPECT:
            raise Problem("invalid_request", "these credentials are for several lanes; name one in the header X-Lane")
        return DEFAULT_LANE
    if len(named) > 1 or not LANE_NAME.fullmatch(named[0]):
        raise Problem("invalid_request", "the header X-Lane is no name of a lane")
    if principal.lanes is not None and named[0] not in principal.lanes:
        raise Problem("forbidden", "these credentials are for other lanes")
    return named[0]
