"""Texts that stand for what a person would not share: each is new, and all have two marks of one run in common.

Whoever looks for the marks finds every canary, also where only a part of it got through.
"""

from __future__ import annotations

import random
import string

KINDS = (
    "command", "argument", "variable", "value", "directory", "user", "host", "output", "exception", "trigger",
    "config", "spec", "anonymizer", "reporter", "server", "token", "property",
)  # fmt: skip
"""What canaries stand for. Two letters behind the first mark tell which, to whoever reads a find."""

_WORDS = string.ascii_letters + string.digits
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ"
_LABEL = " -:_"
_ANY = _LABEL + "\"'\\/%&?#<>$`|;,.()[]=+@!~^*é😀\t"
_FILE = _ANY.replace("/", "")


class Canaries:
    """Makes canaries. What is random in them is its own; what surrounds that is drawn from who asks."""

    def __init__(self, seed: int) -> None:
        self._chance = chance = random.Random(seed)
        word = chance.choice(string.ascii_letters) + "".join(chance.choices(_WORDS, k=11))
        letters = "".join([*chance.choices(_CYRILLIC, k=4), *map(chr, chance.choices(range(0x4E00, 0x9FA5), k=3))])
        self.marks = (word, letters)

    def word(self, kind: str, length: int = 8) -> str:
        """Of letters and digits alone."""
        number = KINDS.index(kind)
        code = chr(97 + number // 26) + chr(97 + number % 26)
        return self.marks[0] + code + "".join(self._chance.choices(_WORDS, k=length))

    def key(self) -> bytes:
        """A salt."""
        return self._chance.randbytes(32)

    def label(self, chance: random.Random, kind: str) -> str:
        """Of what cmdorc takes as the name of a trigger: letters of any script, spaces, ``:``, ``-`` and ``_``."""
        return self._around(chance, kind, _LABEL).strip()

    def text(self, chance: random.Random, kind: str) -> str:
        """Of anything but a zero and the end of a line."""
        return self._around(chance, kind, _ANY)

    def file(self, chance: random.Random, kind: str) -> str:
        """What a file can be named."""
        return self._around(chance, kind, _FILE, most=2)

    def path(self, chance: random.Random, kind: str) -> str:
        """Some names, one below the other."""
        return "/".join(self.file(chance, kind) for _ in range(chance.randint(1, 3)))

    def _around(self, chance: random.Random, kind: str, signs: str, most: int = 6) -> str:
        def some() -> str:
            return "".join(chance.choices(signs, k=chance.randint(0, most)))

        parts = [self.word(kind), self.marks[1]]
        chance.shuffle(parts)
        return some() + parts[0] + some() + parts[1] + some()
