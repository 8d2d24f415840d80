"""Where an IPFS daemon or a gateway is: what a person writes, as a URL and perhaps a Unix socket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_MULTIADDR: Final = re.compile(
    r"/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[^/]+)/tcp/(?P<port>\d{1,5})(?P<scheme>/http|/https|/tls/http|)/?"
)
_AUTHORIZATION: Final = re.compile(r"(?:Bearer|Basic) [\x21-\x7e]{1,4096}")


@dataclass(frozen=True)
class Address:
    """`url` has no slash at its end; with a `socket` the URL's host means nothing."""

    url: str
    socket: str | None = None


def parse_kubo(text: str) -> Address:
    """A daemon's RPC: a URL, `/ip4/127.0.0.1/tcp/5001`, `/dns/host/tcp/443/https`, or `/unix/path`.

    Raises:
        ValueError: with what an address looks like.
    """
    if text.startswith(("/unix/", "unix:///")):
        path = text.removeprefix("unix://").removeprefix("/unix")
        return Address("http://kubo", path)
    if text.startswith("/"):
        return Address(_url_of(text))
    return Address(parse_url(text))


def parse_url(text: str) -> str:
    """An HTTP URL without a slash at its end, a password, or a query. Raises ValueError."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("an address looks like http://127.0.0.1:5001 or https://host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a password does not belong into an address, which is shown")
    if parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise ValueError("an address has no query, no fragment and no spaces")
    return text.rstrip("/")


def parse_authorization(text: str) -> str:
    """What goes into `Authorization`: `Bearer TOKEN` or `Basic BASE64`. Raises ValueError, without the text in it."""
    if not _AUTHORIZATION.fullmatch(text):
        raise ValueError("it looks like 'Bearer TOKEN' or 'Basic BASE64'")
    return text


def _url_of(text: str) -> str:
    match = _MULTIADDR.fullmatch(text)
    if match is None:
        raise ValueError("a daemon's address looks like /ip4/127.0.0.1/tcp/5001, or /dns/host/tcp/443/https")
    scheme = "https" if match["scheme"] in ("/https", "/tls/http") else "http"
    host = f"[{match['host']}]" if match["kind"] == "ip6" else match["host"]
    return parse_url(f"{scheme}://{host}:{match['port']}")
