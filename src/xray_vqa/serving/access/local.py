"""What keeps a server that runs open to this machine: nothing that came through a proxy or from a foreign page.

A browser on this machine will send what any page tells it to. With DNS rebinding the page's own name leads here, and
then only the `Host` header tells; without it `Origin` does.
"""

import re

from starlette.datastructures import Headers

_LOOPBACK_HOST = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)
_FORWARDED = ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")


def why_foreign(headers: Headers) -> str | None:
    """Return why a request is not from a program or a page of this machine, or None."""
    for name in headers:
        if name in _FORWARDED or name.startswith("x-forwarded-"):
            return f"it came through a proxy (header {name})"
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _LOOPBACK_HOST.fullmatch(hosts[0]):
        return "its Host is no name of this machine"
    own = (f"http://{hosts[0]}", f"https://{hosts[0]}")
    if any(origin not in own for origin in headers.getlist("origin")):
        return "it was sent by a page of another origin"
    return None
