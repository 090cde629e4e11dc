"""A network from the user's own code: found, imported and made, its faults in sentences that name file and line."""

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

import robcomp
from robcomp.errors import UserError

EXAMPLE = "module=package.module:factory"


@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """The network of `said` (package.module:name), in eval mode on the CPU, and the file whose code made it."""

    said: str
    name: str
    model: nn.Module
    source: Path | None


def imported(said: str, seed: int) -> OwnNetwork:
    """The network of package.module:name, from the working directory or the installed packages.

    `name` is a module of torch, or a function or class that makes one without arguments; its fresh weights are drawn
    from `seed`.
    """
    place, colon, name = said.partition(":")
    if not colon or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", place) or not name.isidentifier():
        raise UserError(f"module={said} is not PACKAGE.MODULE:NAME; write it as in {EXAMPLE}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    torch.manual_seed(seed)
    module = _module(said, place)
    source = Path(module.__file__) if module.__file__ else None
    if not hasattr(module, name):
        raise UserError(f"module={said}: {_shown(str(source or place))} has no '{name}'; name what is defined there.")
    made = getattr(module, name)
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise UserError(
                f"module={said} is of type {type(made).__name__}; give a torch.nn.Module, or a function or class that "
                "takes no arguments and makes one."
            )
        _check_call(said, made)
        torch.manual_seed(seed)  # again: an import that drew numbers happens once a process
        with in_words(said, source), redirect_stdout(sys.stderr):
            made = made()
    if not isinstance(made, nn.Module):
        raise UserError(f"module={said} returns something of type {type(made).__name__}; return a torch.nn.Module.")
    return OwnNetwork(said, name, made.cpu().eval(), source)


def _check_call(said: str, made: Callable[..., object]) -> None:
    """UserError where what is to make the network cannot be called without arguments."""
    try:
        inspect.signature(made).bind()
    except TypeError as error:
        raise UserError(
            f"module={said} cannot be called without arguments ({error}); name a function that calls it with yours."
        ) from None
    except ValueError:  # written in C, without a signature
        return


def _module(said: str, place: str) -> ModuleType:
    try:
        with redirect_stdout(sys.stderr):  # where --json prints, nothing else may
            return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or place
        if not f"{place}.".startswith(f"{missing}."):  # something that the user's module imports
            where = _where(error, None)
            raise UserError(f"module={said}: {where}: {error}; install it, or correct the import.") from None
        raise UserError(
            f"module={said}: no module '{missing}' in {os.getcwd()} or among the installed packages; run robcomp in "
            "the folder where it lies, or install it."
        ) from None
    except (Exception, SystemExit) as error:
        raise _sentence(said, error, None) from None


@contextmanager
def in_words(said: str, source: Path | None) -> Iterator[None]:
    """What goes wrong in the user's code, as one sentence that names file and line."""
    try:
        yield
    except UserError as error:
        if error.__cause__ is None:
            raise
        raise UserError(f"module={said}: {_where(error.__cause__, source)}: {error}") from None
    except (Exception, SystemExit) as error:
        if not _frames(error, source):  # none of the user's doing
            raise
        raise _sentence(said, error, source) from None


def _sentence(said: str, error: BaseException, source: Path | None) -> UserError:
    if isinstance(error, SystemExit):
        what = "it ends the program (sys.exit); leave that out."
    else:
        message = error.msg if isinstance(error, SyntaxError) else str(error).strip()
        what = f"{type(error).__name__}: {(message or 'no message').splitlines()[0]}"
    return UserError(f"module={said}: {_where(error, source)}: {what}")


def _where(error: BaseException, source: Path | None) -> str:
    """'net.py, line 12': the last line of the user's code on the way to the error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}, line {error.lineno}"
    for frames in (_frames(error, source), _frames(error, None)):
        if frames:
            return f"{_shown(frames[-1].filename)}, line {frames[-1].lineno}"
    return "its code"


def _frames(error: BaseException, source: Path | None) -> list[traceback.FrameSummary]:
    """The lines on the way to the error: those of `source`, or those of code that is neither ours nor installed."""
    ours = str(Path(robcomp.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    if source is not None:
        return [frame for frame in frames if Path(frame.filename) == source]
    outside = [f for f in frames if not f.filename.startswith((ours, "<", os.path.dirname(importlib.__file__)))]
    return [f for f in outside if "site-packages" not in f.filename] or outside


def _shown(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def sources(place: str) -> list[Path]:
    """The files of the module and of all that it imports from its own package or from the folder that it lies in."""
    top, found, todo = place.partition(".")[0], {}, [place]
    home = Path(sys.modules[place].__file__ or "").parents[place.count(".")]
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        path = Path(getattr(module, "__file__", None) or "")
        near = path.is_relative_to(home) and "site-packages" not in path.parts
        if name in found or module is None or not path.is_file() or not (near or name.partition(".")[0] == top):
            continue
        found[name] = path
        held = [*vars(module).values()]
        todo += [
            value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "") for value in held
        ]
    return [found[name] for name in sorted(found)]
