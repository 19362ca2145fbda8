"""Looks for marks in bytes, whatever form they were given on the way there.

Owns the forms, and knows nothing of where the bytes come from. A form that is not here is not looked for:
``test_search.py`` proves each of those that are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote, quote_plus

Encoder = Callable[[str], bytes]


class Find(NamedTuple):
    """One mark where it should not be."""

    place: str
    form: str
    context: str


def _percent(text: str) -> bytes:
    return b"".join(b"%%%02x" % byte for byte in text.encode())


def _python(text: str) -> bytes:
    return text.encode("unicode_escape")


def _octets(text: str) -> bytes:
    return "".join(f"\\x{byte:02x}" for byte in text.encode()).encode()


FOLDED: dict[str, Encoder] = {
    "plain": str.encode,
    "reversed": lambda text: text[::-1].encode(),
    "hex": lambda text: text.encode().hex().encode(),
    "url": lambda text: quote(text, safe="").encode(),
    "url-of-all": _percent,
    "form": lambda text: quote_plus(text).encode(),
    "json": lambda text: json.dumps(text)[1:-1].encode(),
    "python": _python,
    "octets": _octets,
    "html": lambda text: "".join(f"&#{ord(char)};" for char in text).encode(),
    "html-hex": lambda text: "".join(f"&#x{ord(char):x};" for char in text).encode(),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-32-le": lambda text: text.encode("utf-32-le"),
}
"""Forms that are found whatever the case of their letters."""
CASES: dict[str, Callable[[str], str]] = {"": str, "-of-upper": str.upper, "-of-lower": str.lower}
BASE64: dict[str, Callable[[bytes], bytes]] = {"base64": base64.b64encode, "base64-url": base64.urlsafe_b64encode}
HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s")
_HEX = re.compile(rb"[0-9a-fA-F]{12,}")
_DIGITS = 12


def aligned(encode: Callable[[bytes], bytes], bits: int, data: bytes) -> Iterator[bytes]:
    """What ``data`` looks like in the middle of something longer, at each place that it can have in a group."""
    group = {6: 3, 5: 5}[bits]
    for shift in range(group):
        text = encode(b"\0" * shift + data)
        yield text[-(-8 * shift // bits) : 8 * (shift + len(data)) // bits]


def forms(mark: str) -> Iterator[tuple[str, bytes, bool]]:
    """Every form of a mark: its name, its bytes, and whether the case of letters counts."""
    for case, change in CASES.items():
        text = change(mark)
        for name, encode in FOLDED.items():
            yield name + case, encode(text).lower(), False
        for number, piece in enumerate(aligned(base64.b32encode, 5, text.encode())):
            yield f"base32+{number}{case}", piece.lower(), False
        for name, b64 in BASE64.items():
            for number, piece in enumerate(aligned(b64, 6, text.encode())):
                yield f"{name}+{number}{case}", piece, True


class Searcher:
    """Finds marks, secrets and unsalted hashes."""

    def __init__(self, marks: Iterable[str], *, names: Iterable[str] = (), key: bytes | None = None) -> None:
        """``names``: whose hashes are looked for, too, where no key of this machine went into them. ``key``: a secret
        of bytes."""
        self._folded: dict[bytes, str] = {}
        self._exact: dict[bytes, str] = {}
        for mark in marks:
            for name, data, exact in forms(mark):
                (self._exact if exact else self._folded).setdefault(data, name)
        if key is not None:
            self._add_key(key)
        self._hashes = {digest for name in names for digest in hashes(name)}

    def _add_key(self, key: bytes) -> None:
        self._folded[key.lower()] = "key"
        for name, data, exact in forms(key.hex()):
            (self._exact if exact else self._folded).setdefault(data, f"key-{name}")
        for name, encode in BASE64.items():
            for piece in aligned(encode, 6, key):
                self._exact[piece] = f"key-{name}"

    def __call__(self, place: str, data: bytes) -> Iterator[Find]:
        """Everything that is found in ``data``, each form once."""
        for haystack, needles in ((data.lower(), self._folded), (data, self._exact)):
            for needle, form in needles.items():
                at = haystack.find(needle)
                if at >= 0:
                    yield Find(place, form, repr(data[max(at - 60, 0) : at + len(needle) + 30]))
        if self._hashes:
            for run in _HEX.finditer(data):
                if run[0][:_DIGITS].lower() in self._hashes:
                    yield Find(place, "unsalted hash", repr(data[max(run.start() - 60, 0) : run.end()]))


def hashes(name: str) -> Iterator[bytes]:
    """The first digits of every hash of ``name`` that anybody could compute."""
    for text in {name, name.lower(), name.strip()}:
        for kind in HASHES:
            yield hashlib.new(kind, text.encode("utf-8", "replace")).hexdigest()[:_DIGITS].encode()
        yield hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest().encode()
        yield hmac.digest(b"", text.encode("utf-8", "replace"), "sha256").hex()[:_DIGITS].encode()
