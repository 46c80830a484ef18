"""What the CUDA kernels take on a multiprocessor, as the compiler tells it: registers, spills, memory.

Usage: python .ci/kernels.py docs/kernels.md: writes the table. With --check: fails where a function spills more than
the table says, or the table lacks one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).resolve().parent.parent / "csrc"
CAPABILITIES = ("80", "90", "100")
OPTIONS = ["-std=c++17", "-O3", "--fmad=false", "--expt-relaxed-constexpr", "-Xptxas", "-v", "-c"]
REGISTERS, WARPS = 65536, 64  # of a multiprocessor
HEAD = "| kernel or function | registers | warps | shared memory | stack | spilled: stores | loads |"


class Told(NamedTuple):
    """Of a kernel, or of a function that it calls. Registers, and so warps, are a kernel's, functions included."""

    name: str
    capability: str
    registers: int | None
    shared: int | None
    stack: int
    stores: int
    loads: int


def row(of_one: list[Told]) -> str:
    """Of a function, for each capability."""
    columns: list[list[int | None]] = [[told.registers for told in of_one]]
    columns += [[warps(told.registers) for told in of_one], [told.shared for told in of_one]]
    columns += [[told[i] for told in of_one] for i in (4, 5, 6)]
    return f"| `{of_one[0].name}` | " + " | ".join(joined(column) for column in columns) + " |"


def warps(registers: int | None) -> int | None:
    """How many find room for so many registers of each thread."""
    return None if registers is None else min(WARPS, REGISTERS // (-(-registers // 8) * 8 * 32))


def joined(numbers: list[int | None]) -> str:
    """One number if all are the same."""
    if numbers[0] is None:
        return ""
    return str(numbers[0]) if len(set(numbers)) == 1 else " / ".join(map(str, numbers))


def compiled(kernel: Path, capability: str) -> list[Told]:
    """What the compiler tells of a file."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", *OPTIONS, f"-arch=sm_{capability}", str(kernel), "-o", f"{folder}/kernel.o"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    found = []
    block = re.compile(
        r"Function properties for (\w+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r"(?:\nptxas info\s*: Used (\d+) registers([^\n]*))?"
    )
    for name, stack, stores, loads, registers, rest in block.findall(said):
        shared = re.search(r"(\d+) bytes smem", rest)
        taken = (int(registers), int(shared[1]) if shared else 0) if registers else (None, None)
        found.append(Told(readable(name), capability, *taken, int(stack), int(stores), int(loads)))
    return found


def readable(name: str) -> str:
    """Of a mangled name, without namespaces and arguments."""
    name = subprocess.run(["c++filt", name], check=True, capture_output=True, text=True).stdout.strip()
    inner = r"\(anonymous namespace\)::|pylinregion::|_GLOBAL__N__\w+::|_NV_ANON_NAMESPACE::|_INTERNAL_\w+::|^void "
    name = re.sub(inner, "", name)
    return name.split("(")[0]


def all_told() -> dict[str, list[Told]]:
    """Of each function, for each capability in turn."""
    kernels = sorted(CSRC.rglob("*.cu"))
    tasks = [(kernel, capability) for capability in CAPABILITIES for kernel in kernels]
    found: dict[str, dict[str, Told]] = {}
    with ThreadPoolExecutor(2) as threads:
        for part in threads.map(lambda task: compiled(*task), tasks):
            for told in part:
                copies = found.setdefault(told.name, {})
                copies[told.capability] = worst(told, copies.get(told.capability, told))
    return {name: list(copies.values()) for name, copies in sorted(found.items())}


def worst(a: Told, b: Told) -> Told:
    """Of two copies of a function."""
    return a._replace(stack=max(a.stack, b.stack), stores=max(a.stores, b.stores), loads=max(a.loads, b.loads))


def main() -> int:
    """Write the table, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    text = given.table.read_text(encoding="utf-8")
    found = all_told()
    if not given.check:
        before = text[: text.index(HEAD)]
        rows = "\n".join(row(of_one) for of_one in found.values())
        given.table.write_text(f"{before}{HEAD}\n|{' --- |' * 7}\n{rows}\n", encoding="utf-8")
        return 0
    more = [said for name, of_one in found.items() if (said := spills_more(name, of_one, text))]
    print("\n".join(more) or f"{len(found)} kernels and functions spill no more than {given.table} says")
    return len(more) > 0


def spills_more(name: str, of_one: list[Told], table: str) -> str:
    """What is wrong, if a function spills more than the table's row says, or has none."""
    line = next((line for line in table.splitlines() if line.startswith(f"| `{name}` |")), None)
    if line is None:
        return f"{name} is not in the table"
    for column, kind in ((5, "stores"), (6, "loads")):
        numbers = [int(number) for number in line.strip("| ").split("|")[column].split("/")]
        for i, told in enumerate(of_one):
            if told[column] > numbers[min(i, len(numbers) - 1)]:
                return f"{name} on {told.capability} spills {told[column]} bytes ({kind}), in the table {numbers}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
