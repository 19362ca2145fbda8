"""Certificates made at run time: a right one, and those that must not be trusted."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme

NAMES = ("127.0.0.1", "localhost", "telemetry.test")
"""What the right certificate is for."""


class Certificates:
    """A certificate authority of its own; ``ca.pem`` in ``folder`` is what trusts it."""

    def __init__(self, folder: Path) -> None:
        import trustme  # of the extra

        self._folder, self._ca = folder, trustme.CA()
        self.authority = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.authority)
        self._contexts: dict[str | None, ssl.SSLContext] = {}

    def context(self, kind: str | None) -> ssl.SSLContext:
        """A server's context with the right certificate (None), or that of a fault."""
        if kind not in self._contexts:
            self._contexts[kind] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            if kind == "self-signed":
                file = self._folder / "self-signed.pem"
                self._other.private_key_pem.write_to_path(file)
                self._other.cert_pem.write_to_path(file, append=True)
                context.load_cert_chain(file)
            elif kind == "wrong-name":
                self._ca.issue_cert("somewhere-else.test").configure_cert(context)
            elif kind == "expired":
                now = datetime.now(timezone.utc)  # noqa: TID251 - real certificates have real dates
                begin, end = now - timedelta(days=400), now - timedelta(days=1)
                self._ca.issue_cert(*NAMES, not_before=begin, not_after=end).configure_cert(context)
            else:
                self._ca.issue_cert(*NAMES).configure_cert(context)
        return self._contexts[kind]

    @cached_property
    def _other(self) -> trustme.CA:
        import trustme

        return trustme.CA()
