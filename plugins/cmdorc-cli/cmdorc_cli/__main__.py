"""``python -m cmdorc_cli``: the same as ``cmdorc``."""

from __future__ import annotations

from .cli import main

main()
