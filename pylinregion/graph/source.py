"""Where in the user's code something comes from: module paths and lines, as messages and layers name them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import fx

_PACKAGE = Path(__file__).parents[1]
_NOT_THE_USERS = tuple(folder.replace("\\", "/") + "/" for folder in (torch.__path__[0], str(_PACKAGE)))


def source_of(node: fx.Node, root: str) -> tuple[str, str]:
    """The module path and ``file:line: code`` of a node."""
    path = ""
    stack = node.meta.get("nn_module_stack") or {}
    if stack:
        path = str(list(stack.values())[-1][0]).replace("._orig_mod", "")
        path = path.removeprefix("L['self'].").removeprefix("L__self__").lstrip(".")
        path = "" if path + "." == root else path.removeprefix(root)
    line = ""
    text = node.meta.get("stack_trace") or ""
    for file, number, code in re.findall(r'File "([^"]+)", line (\d+)[^\n]*(?:\n\s*([^\n]*))?', text):
        if is_users(file):
            line = code_line(file, number, code)
    return path, line


def is_users(file: str) -> bool:
    """Whether code is neither torch's nor ours."""
    return not file.startswith("<eval_with_key>") and not file.replace("\\", "/").startswith(_NOT_THE_USERS)


def code_line(file: str, number: int | str, code: str) -> str:
    """``file:line: code``, the file without its folder."""
    return f"{file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{number}: {code.strip()}"
