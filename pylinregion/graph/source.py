"""Where in the user's code something comes from: module paths and lines, as messages and layers name them."""

from __future__ import annotations

import linecache
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from pylinregion.graph.network import place

_CALL = nn.Module._call_impl.__code__
_PACKAGE = Path(__file__).parents[1]
_NOT_THE_USERS = tuple(folder.replace("\\", "/") + "/" for folder in (torch.__path__[0], str(_PACKAGE)))


def users_frame(frame: FrameType | None, inside: nn.Module | None = None) -> FrameType | None:
    """The user's code that a frame was called from, its own included; None if there is none.

    Args:
        frame: The frame.
        inside: Only what a call of this module runs.
    """
    while frame is not None and not is_users(frame.f_code.co_filename):
        left = frame.f_code is _CALL and frame.f_locals["self"] is inside
        frame = None if left else frame.f_back
    return frame


def place_in_users_code(error: BaseException, module: nn.Module) -> str:
    """Module path and line of the last frame of the user's that an error went through; empty if there is none."""
    at = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if is_users(file := frame.f_code.co_filename):
            line = code_line(file, number, linecache.getline(file, number))
            local = set(map(id, frame.f_locals.values()))
            owner = next((name for name, part in module.named_modules() if id(part) in local), "")
            at = place(owner, line)
    return at


def line_of(frame: FrameType) -> str:
    """``file:line: code`` of where a frame is."""
    file, number = frame.f_code.co_filename, frame.f_lineno
    return code_line(file, number, linecache.getline(file, number))


def running_module() -> Any:
    """The module whose forward pass, or hook, this is in; None if it is in none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _CALL:
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]


def is_users(file: str) -> bool:
    """Whether code is neither torch's nor ours."""
    return not file.startswith("<eval_with_key>") and not file.replace("\\", "/").startswith(_NOT_THE_USERS)


def code_line(file: str, number: int | str, code: str) -> str:
    """``file:line: code``, the file without its folder."""
    return f"{file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{number}: {code.strip()}"
