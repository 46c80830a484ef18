"""Models from files, without running what a pickle holds; points are in ``load_points.py``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import operator
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pylinregion._util import memory
from pylinregion._util.errors import PylinregionError
from pylinregion.archives.exported_archive import WHY_NO_PICKLE, NotAnArchive, safe_archive

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")


@dataclass(frozen=True)
class Loaded:
    """A model with what is known of its input: dtype (None: any) and the shape of a point (None: not known, or any)."""

    model: nn.Module | torch.export.ExportedProgram
    dtype: torch.dtype | None
    input_shape: tuple[int | None, ...] | None


def load_model(args: argparse.Namespace, device: torch.device) -> Loaded:
    """The model of the arguments ``model`` and ``weights``.

    Raises:
        ValueError, TypeError, OSError, ImportError: It cannot be had; a pickle is refused.
    """
    name: str = args.model
    suffix = Path(name).suffix.lower()
    if suffix in _PICKLES:
        raise ValueError(
            f"{name} is {WHY_NO_PICKLE}: give a .pt2 archive (torch.export.save), or the code as "
            "package.module:factory with --weights FILE.safetensors"
        )
    if suffix == ".pt2":
        if args.weights is not None:
            raise WrongUsage("--weights goes with package.module:factory; a .pt2 archive has its own")
        return _load_archive(Path(name), device, args.trust)
    if not all(name.partition(":")):
        raise ValueError(f"MODEL must be a .pt2 archive or package.module:factory, got {name!r}")
    module = _make_module(name)
    if args.weights is not None:
        _load_weights(module, args.weights)
    _refuse_meta(name, module)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    return Loaded(module.to(device), dtype, None)


def _load_archive(path: Path, device: torch.device, trust: bool) -> Loaded:
    """Load a program, as it is if it is trusted; an archive that torch cannot load is a ``ValueError``."""
    source: Any = path
    if not trust:
        try:
            source = safe_archive(path)
        except NotAnArchive:
            raise
        except ValueError as error:
            raise ValueError(f"{error}; if you trust whoever made it, give --trust") from None
    with _silent():
        try:
            program = torch.export.load(source)
            if device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, str(device))
            program.module()
        except Exception as error:  # torch fails in many ways on a bad archive
            raise ValueError(f"{path}: torch.export.load raised {type(error).__name__}: {one_line(error)}") from error
    inputs = program.graph_signature.user_inputs
    found = next((n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder" and n.name in inputs), None)
    if not isinstance(found, Tensor) or found.dim() < 1:
        return Loaded(program, None, None)
    shape = tuple(size if isinstance(size, int) else None for size in found.shape[1:])
    return Loaded(program, found.dtype, shape)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without warnings and logs about torch's internals; what goes wrong is in our error."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def _make_module(name: str) -> nn.Module:
    """Import ``package.module:factory``, the current directory first, and call the factory."""
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = operator.attrgetter(attribute)(importlib.import_module(module_name))
        model = factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ValueError(f"{name}: {type(error).__name__}{_place(error)}: {one_line(error)}") from error
    if model is factory or not isinstance(model, nn.Module):
        expected = "a callable without arguments that returns an nn.Module"
        raise TypeError(f"{name} must be {expected}, got {type(model).__name__}")
    return model


def _place(error: BaseException) -> str:
    """The innermost line of the user's code that an error passed through, in words; "" if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        ours = frame.filename in (__file__, importlib.__file__) or frame.filename.startswith("<frozen importlib")
        if not ours and Path(torch.__file__).parent not in file.parents:
            return f" at {file.name}:{frame.lineno}"
    return ""


def _refuse_meta(name: str, module: nn.Module) -> None:
    """Tensors on torch's meta device have no numbers to count with."""
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_meta:
            raise ValueError(f"{name}: its {key} is on torch's meta device, which has shapes and no numbers")


def _load_weights(module: nn.Module, path: str) -> None:
    """Load a safetensors file; a module of lesser precision than the file is converted, so that nothing is rounded."""
    if Path(path).suffix.lower() in _PICKLES:
        raise ValueError(f"--weights: {path} is {WHY_NO_PICKLE}: give a .safetensors file")
    refuse_folder("--weights", path)
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_model
    except ModuleNotFoundError as error:
        raise _missing("--weights", error, "safetensors") from error
    check_memory(f"--weights: {path}", Path(path).stat().st_size)
    try:
        with safe_open(path, framework="pt") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 (it is no dict)
        _widen(module, {_FLOATS[kind] for kind in kinds if kind in _FLOATS})
        load_model(module, path)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"--weights {path}: {one_line(error)}") from error


def _widen(module: nn.Module, dtypes: set[torch.dtype]) -> None:
    own = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    wide = None
    for dtype in own | dtypes:
        wide = dtype if wide is None else torch.promote_types(wide, dtype)
    if wide is not None and own and own != {wide}:
        module.to(wide)
        note(f"the weights are {dtype_name(wide)}, the factory's module is not: converted the module")


def fixed(shape: Sequence[int | None] | None) -> tuple[int, ...] | None:
    """A shape if all of it is known, else None."""
    sizes = [size for size in shape or () if size is not None]
    return None if shape is None or len(sizes) < len(shape) else tuple(sizes)


def check_shape(what: str, shape: Sequence[int], loaded: Loaded) -> None:
    """The shape of a point against that of an archive."""
    expected = loaded.input_shape
    if expected is None:
        return
    if len(shape) != len(expected) or any(b not in (a, None) for a, b in zip(shape, expected, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        found = ", ".join(map(str, shape))
        raise ValueError(f"{what} must be points [B, {wanted}], as the model was exported, got [B, {found}]")


def _missing(what: str, error: ModuleNotFoundError, extra: str) -> ImportError:
    return ImportError(f'{what} needs {error.name}, which is not installed: pip install "pylinregion[{extra}]"')


class WrongUsage(Exception):
    """Arguments that do not go together: the program ends with the usage and exit code 2."""


def dtype_name(dtype: torch.dtype) -> str:
    """Without torch's prefix."""
    return str(dtype).removeprefix("torch.")


def check_memory(what: str, needed: int) -> None:
    """Say before reading or making something that there is no memory for it."""
    if needed > (most := memory.budget(None)):
        raise ValueError(f"{what} would take {needed} bytes, more than the {most} that may be used here")


def refuse_folder(what: str, path: str) -> None:
    """Some libraries say of a folder that there is no such device."""
    if Path(path).is_dir():
        raise IsADirectoryError(f"{what}: {path!r} is a folder")


@contextlib.contextmanager
def blaming(model: str) -> Iterator[None]:
    """Name the model in whatever its own code or program raises that is no error of ours."""
    try:
        yield
    except (PylinregionError, ValueError, TypeError, OSError, MemoryError, RuntimeError):
        raise
    except Exception as error:
        raise ValueError(f"{model}: {type(error).__name__}: {one_line(error)}") from error


def note(text: str) -> None:
    """Tell the user something that is no error."""
    print(f"pylinregion: note: {text}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """An error's words on one line, without characters that steer a terminal."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error of the user's code that cannot say what it is
        text = ""
    if isinstance(error, MemoryError):
        text = "out of memory" + f": {text}" * bool(text)
    return "".join(c if c.isprintable() else "?" for c in text) or type(error).__name__
