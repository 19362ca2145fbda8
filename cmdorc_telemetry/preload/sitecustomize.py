"""What ``exec`` puts into a program: Python imports it before the program's own first line.

It stands in for the environment's own ``sitecustomize``, which it hands over to. It takes every trace of itself out of
the environment and out of ``sys.path``, so that what the program starts is as it would be without, and waits for
``import cmdorc``. A program that never does that never imports anything of telemetry either: nothing but what Python
has loaded by now is used here.
"""

import _frozen_importlib
import os
import sys

TYPE_CHECKING = False  # typing may not be loaded
if TYPE_CHECKING:
    from typing import Any

_HERE = os.path.dirname(__file__)


def _found(name: str, path: "Any" = None, target: "Any" = None) -> "Any":
    """Where a module is; None where it is not."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path, target)
        if spec is not None:
            return spec
    return None


class _Waiting:
    """A finder that finds nothing: when cmdorc is looked for, it goes, and sees to it that it is heard of."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name != "cmdorc":
            return None
        sys.meta_path.remove(self)
        spec = _found(name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            _follow(spec.loader)
        return spec


def _follow(loader: "Any") -> None:
    """Let ``loader``, which loads cmdorc alone, tell when it is done."""
    load = loader.exec_module

    def exec_module(module: "Any") -> None:
        del loader.exec_module
        load(module)
        try:
            from cmdorc_telemetry.unmodified import prepare

            prepare(module)
        except Exception as fault:
            import logging

            logging.getLogger("cmdorc_telemetry").debug("the program goes on without telemetry: %s", fault)

    loader.exec_module = exec_module


def _vanish() -> None:
    """Leave paths and variables as they were."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if _HERE in paths:
        paths.remove(_HERE)
    if paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    else:
        os.environ.pop("PYTHONPATH", None)
    sys.path[:] = [path for path in sys.path if path != _HERE]
    sys.path_importer_cache.pop(_HERE, None)


def _hand_over() -> None:
    """Run the ``sitecustomize`` that this one stands before; where there is none, Python is told just that."""
    spec = _found(__name__)
    if spec is None or spec.loader is None:
        raise ImportError(name=__name__)
    sys.modules[__name__] = module = _frozen_importlib.module_from_spec(spec)
    spec.loader.exec_module(module)


_vanish()
sys.meta_path.insert(0, _Waiting())
_hand_over()
