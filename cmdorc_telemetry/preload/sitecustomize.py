"""What ``exec`` puts into a program: Python imports it before the program's own first line.

It stands in for the environment's own ``sitecustomize``, which it hands over to. It takes every trace of itself out of
the environment and out of ``sys.path``, so that what the program starts is as it would be without, and waits for those
modules of cmdorc in which something is to be followed, however often they are loaded. A program that never imports
them never imports anything of telemetry either: nothing but what Python has loaded by now is used here.
"""

import _frozen_importlib
import os
import sys

TYPE_CHECKING = False  # typing may not be loaded
if TYPE_CHECKING:
    from typing import Any

_HERE = os.path.dirname(__file__)
_AWAITED = frozenset({"cmdorc.command_orchestrator", "cmdorc.load_config"})


def _found(name: str, path: "Any" = None, target: "Any" = None) -> "Any":
    """Where a module is, as everybody else sees it; None where it is not."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find and not isinstance(finder, _Waiting) and find(name, path, target)
        if spec:
            return spec
    return None


class _Waiting:
    """A finder that finds what the others do, and sees to it that it is heard of when an awaited module is loaded."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name not in _AWAITED:
            return None
        spec = _found(name, path, target)
        if hasattr(getattr(spec, "loader", None), "exec_module"):
            _follow(spec.loader)
        return spec


def _follow(loader: "Any") -> None:
    """Let ``loader`` tell whether what it loads next was awaited: that of a zip loads many modules."""
    load = loader.exec_module

    def exec_module(module: "Any") -> None:
        vars(loader).pop("exec_module", None)
        load(module)
        if module.__name__ in _AWAITED:
            _tell(module)

    try:
        loader.exec_module = exec_module
    except (AttributeError, TypeError):  # it takes none
        return


def _tell(module: "Any") -> None:
    """Have ``module`` prepared. The program goes on, whatever goes wrong."""
    try:
        from cmdorc_telemetry.unmodified import prepare

        prepare(module)
    except Exception as fault:
        import logging

        logging.getLogger("cmdorc_telemetry").debug("the program goes on without telemetry: %s", fault)


def _vanish() -> None:
    """Leave paths and variables as they were."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in paths if path != _HERE]
    if others or len(paths) > 1:  # twice: it was there, and empty
        os.environ["PYTHONPATH"] = os.pathsep.join(others)
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
for _name in _AWAITED & sys.modules.keys():  # something that Python did before had it imported
    _tell(sys.modules[_name])
_hand_over()
