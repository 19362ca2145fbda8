"""What may take only so long: ``asyncio.timeout``, which Python 3.10 does not have."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Cancel what is in the ``with`` block after so long, and raise asyncio.TimeoutError there.

    Unlike ``asyncio.wait_for`` it makes no task, and what was made in the last moment is not lost with its result.
    """
    task = asyncio.current_task()
    assert task is not None
    expired, cancelled_before = False, 0
    if sys.version_info >= (3, 11):  # pragma: no branch - depends on the Python version
        cancelled_before = task.cancelling()

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        yield
    except asyncio.CancelledError:
        if not expired or (sys.version_info >= (3, 11) and task.cancelling() > cancelled_before + 1):
            raise
        raise asyncio.TimeoutError from None
    finally:
        timer.cancel()
        if expired and sys.version_info >= (3, 11):
            task.uncancel()
