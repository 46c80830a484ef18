"""Where a traced node comes from: the module path that the user knows, and the line of the user's code."""

from __future__ import annotations

import re

from torch import fx

from pylinregion.graph.source import code_line, is_users


def source_of(node: fx.Node, root: str) -> tuple[str, str]:
    """The module path and ``file:line: code`` of a node."""
    path = ""
    stack = node.meta.get("nn_module_stack") or {}
    if stack:
        path = str(list(stack.values())[-1][0]).replace("._orig_mod", "")
        path = path.removeprefix("L['self'].").removeprefix("L__self__").lstrip(".")
        path = own_name(f"{path}.", root).rstrip(".")
    line = ""
    text = node.meta.get("stack_trace") or ""
    for file, number, code in re.findall(r'File "([^"]+)", line (\d+)[^\n]*(?:\n\s*([^\n]*))?', text):
        if is_users(file):
            line = code_line(file, number, code)
    return path, line


def own_name(name: str, root: str) -> str:
    """What the user's model calls its part that the traced module calls ``name``.

    Args:
        name: Of a module or a tensor, with all or some of ``root`` in front.
        root: The names of the modules that the model is in, each with a dot behind it.
    """
    for wrapper in root.split(".")[:-1]:
        name = name.removeprefix(f"{wrapper}.")
    return name
