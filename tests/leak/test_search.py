"""The search finds what it is for: each form of each mark, wherever it stands, and nothing where nothing is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
from urllib.parse import quote

import pytest

from .canaries import KINDS, Canaries
from .search import Searcher, forms

CHANCE = random.Random(7)
CANARIES = Canaries(7)
SEARCH = Searcher(CANARIES.marks)
NOISE = bytes(range(256)) * 3
TEXTS = [make(CHANCE, kind) for kind in KINDS for make in (CANARIES.text, CANARIES.label, CANARIES.path)]
WAYS = {
    "as it is": str.encode,
    "upper case": lambda text: text.upper().encode(),
    "lower case": lambda text: text.lower().encode(),
    "title case": lambda text: text.title().encode(),
    "JSON": lambda text: json.dumps({"x": text}).encode(),
    "JSON of UTF-8": lambda text: json.dumps({"x": text}, ensure_ascii=False).encode(),
    "JSON within JSON": lambda text: json.dumps(json.dumps({"x": text}, ensure_ascii=False)).encode(),
    "a repr": lambda text: repr(text).encode(),
    "a repr of bytes": lambda text: repr(text.encode()).encode(),
    "hex": lambda text: text.encode().hex().encode(),
    "HEX": lambda text: text.encode().hex().upper().encode(),
    "a URL": lambda text: quote(text).encode(),
    "a URL in lower case": lambda text: quote(text).lower().encode(),
    "backwards": lambda text: text[::-1].encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()),
    "base64 behind one byte": lambda text: base64.b64encode(b"x" + text.encode()),
    "base64 behind two bytes": lambda text: base64.b64encode(b"xy" + text.encode()),
    "base64 of upper case": lambda text: base64.b64encode(text.upper().encode()),
    "base64 of lower case": lambda text: base64.urlsafe_b64encode(b"-" + text.lower().encode()),
    "base32": lambda text: base64.b32encode(b"abcd" + text.encode()),
    "UTF-16": lambda text: text.encode("utf-16"),
    "cut off": lambda text: text.encode()[: text.encode().find(CANARIES.marks[0].encode()) + 12],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_canary_is_found_in_each_form(way: str) -> None:
    for text in TEXTS:
        data = WAYS[way](text)
        assert list(SEARCH("there", NOISE + data + NOISE)), (way, text)


@pytest.mark.parametrize("mark", CANARIES.marks)
def test_each_form_of_a_mark_is_found_alone(mark: str) -> None:
    alone = Searcher([mark])
    made = {name: data for name, data, _ in forms(mark)}
    assert len(made) >= 60
    for name, data in made.items():
        assert any(find.context.encode() for find in alone("there", b"<" + data + b">")), name


def test_where_nothing_is_nothing_is_found() -> None:
    other = Canaries(8)
    text = " ".join(other.text(CHANCE, kind) for kind in KINDS).encode()
    for data in (NOISE, os.urandom(200_000), os.urandom(100_000).hex().encode(), base64.b64encode(text), text):
        assert list(SEARCH("there", data)) == []


def test_a_find_says_where_in_which_form_and_beside_what() -> None:
    (find,) = {each for each in SEARCH("log", b"a run of " + CANARIES.marks[0].encode() + b" failed")
               if each.form == "plain"}  # fmt: skip
    assert find.place == "log"
    assert "a run of " in find.context


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "blake2b"])
def test_a_hash_that_anybody_could_compute_is_found(kind: str) -> None:
    search = Searcher([], names=TEXTS)
    for text in TEXTS:
        digest = hashlib.new(kind, text.encode()).hexdigest()
        assert list(search("there", f'"hash":"{digest[:12]}"'.encode())), text
        assert list(search("there", digest.upper().encode())), text
    assert not list(search("there", os.urandom(10_000).hex().encode()))


def test_a_key_is_found_in_each_form() -> None:
    key = random.Random(9).randbytes(32)
    search = Searcher([], key=key)
    for data in (key, key.hex().encode(), key.hex().upper().encode(), base64.b64encode(b"k" + key),
                 base64.urlsafe_b64encode(key.hex().encode())):  # fmt: skip
        assert list(search("there", NOISE + data + NOISE))
    assert not list(search("there", random.Random(10).randbytes(32)))
