"""Which addresses may be sent to. Pure; knows nothing of requests."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def check_endpoint(endpoint: str, secret: str) -> str | None:
    """What is wrong with ``endpoint`` and what would be right, or None. Never repeats credentials.

    ``secret`` is the name of the setting that they belong into.
    """
    if not endpoint or any(not char.isprintable() or char in " \\" for char in endpoint):
        return "endpoint: found an empty address, or one with spaces or backslashes; expected an https:// address"
    try:
        parts = urlsplit(endpoint)
        host, has_user, _ = parts.hostname, "@" in parts.netloc, parts.port
        if host and not host.isascii():
            host.encode("idna")
    except ValueError as fault:  # UnicodeError is one
        return f"endpoint: found no address ({fault}); expected one such as 'https://t.example/v1'"
    if has_user:
        return f"endpoint: found a user name or password in the address; expected none: use the key {secret!r}"
    if "?" in endpoint or "#" in endpoint:
        return "endpoint: found a query or fragment in the address; expected one that ends with its path"
    if parts.scheme not in ("http", "https") or not host:
        return f"endpoint: found {endpoint!r}; expected an https:// address, such as 'https://t.example/v1'"
    if parts.scheme == "http" and not is_loopback(host):
        return f"endpoint: found {endpoint!r}; expected https:// (plain http:// goes to this machine alone)"
    return None


def check_secret(name: str, secret: str | None) -> str | None:
    """What is wrong with the secret of that name, such as a token, or None. Never repeats it."""
    if secret is None or (secret and secret.isascii() and secret.isprintable() and " " not in secret):
        return None
    return f"{name}: found an empty one, or spaces or characters beyond ASCII in it; expected the bare {name}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only ever be this machine: a loopback address, or ``localhost``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return any(address in network for network in _LOOPBACK)
