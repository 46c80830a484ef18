"""Archives of the command line: what runs code when torch loads it is refused; honest archives load as before."""

import contextlib
import dataclasses
import json
import logging
import random
import struct
import sys
import typing
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.archive_attacks import (
    ATTACKS,
    CONSTANTS,
    IN_OTHER_PARTS,
    PROGRAM,
    SAMPLES,
    WEIGHTS,
    Victim,
    entries,
    exported,
    graph,
    guard,
    on_program,
    pickled,
    size_of_tensor,
    touch,
    write,
)
from pylinregion.archives import exported_archive, program_document
from pylinregion.cli.commands import main

AUTO, STATIC = torch.export.Dim.AUTO, torch.export.Dim.STATIC


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("honest") / "m.pt2"
    torch.export.save(exported(Victim()), path)
    return path


def load_as_torch_does(path: Path, run: bool) -> None:
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            if run:
                program.module()(torch.zeros(6, 4))
    finally:
        logger.setLevel(level)
        sys.modules.pop("imported_by_a_tree", None)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with one line of error, and gives the line."""

    def run(path: Path, *arguments: str) -> str:
        capsys.readouterr()
        assert main(["explain", str(path), *arguments]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("pylinregion: error: "), (out, err)
        return err

    return run


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_runs_code_in_torch_is_refused(attack, honest, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    change, how = ATTACKS[attack]
    parts, trace = dict(entries(honest)), tmp_path / "trace"
    change(parts, str(trace))
    write(tmp_path / "m.pt2", list(parts.items()))
    text = refused(tmp_path / "m.pt2")
    assert not trace.exists() and "--trust" in text
    if how is not None:  # the attack is one
        load_as_torch_does(tmp_path / "m.pt2", how == "run")
        assert trace.exists()


def test_trust_loads_what_torch_loads(honest, tmp_path, capsys):
    parts, trace = dict(entries(honest)), tmp_path / "trace"
    on_program(size_of_tensor)(parts, str(trace))
    write(tmp_path / "m.pt2", list(parts.items()))
    assert main(["explain", str(tmp_path / "m.pt2"), "--trust"]) == 0
    assert trace.exists() and "16 neurons in 2 layers" in capsys.readouterr().out


@pytest.mark.parametrize("part", [PROGRAM, WEIGHTS, CONSTANTS])
def test_entries_of_one_name_are_refused(part, honest, tmp_path, refused):
    """Python reads the last of them, torch another, so a check of one says nothing of the other."""
    trace, parts = tmp_path / "trace", dict(entries(honest))
    evil, ran = dict(parts), []
    if part == PROGRAM:
        on_program(size_of_tensor)(evil, str(trace))
    else:
        IN_OTHER_PARTS["pickled weights" if part == WEIGHTS else "pickled constants"][0](evil, str(trace))
    for order in ((evil, parts), (parts, evil)):
        twice = [(part, each[part]) for each in order]
        write(
            tmp_path / "m.pt2",
            [item for name, data in evil.items() for item in (twice if name == part else [(name, data)])],
        )
        assert f"has 2 entries 'archive/{part}'" in refused(tmp_path / "m.pt2")
        assert not trace.exists()
        load_as_torch_does(tmp_path / "m.pt2", run=False)
        ran.append(trace.exists())
        trace.unlink(missing_ok=True)
    assert any(ran)


def test_what_is_not_needed_is_not_read(honest, tmp_path, capsys):
    """Guards, example inputs, metadata and extra files stay out of what torch is given."""
    trace = tmp_path / "trace"
    parts = dict(entries(honest))
    on_program(guard)(parts, str(trace))
    write(tmp_path / "guard.pt2", list(parts.items()))
    load_as_torch_does(tmp_path / "guard.pt2", run=True)
    assert trace.exists()
    trace.unlink()
    parts[SAMPLES] = pickled(str(trace))
    parts["extra/note.txt"] = pickled(str(trace))
    document = json.loads(parts[PROGRAM])
    for node in graph(document)["nodes"]:
        node["metadata"].update(custom="no json", from_node="no json", source_fn_stack="x,torch.os.system")
    parts[PROGRAM] = json.dumps(document).encode()
    write(tmp_path / "m.pt2", list(parts.items()))
    assert main(["explain", str(honest)]) == main(["explain", str(tmp_path / "m.pt2")]) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :] and not trace.exists()
    load_as_torch_does(tmp_path / "m.pt2", run=False)
    assert trace.exists()


def old_layout(program: torch.export.ExportedProgram, path: Path, state: bytes | None = None) -> None:
    """As torch 2.6 writes it."""
    from torch._export.serde.serialize import serialize

    made = serialize(program)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_exported_program.json", made.exported_program)
        archive.writestr("serialized_state_dict.pt", state or made.state_dict)
        archive.writestr("serialized_constants.pt", made.constants)
        archive.writestr("serialized_example_inputs.pt", made.example_inputs)
        archive.writestr("extra_files/note.txt", "hello")


def test_archives_of_older_torch_are_loaded_and_their_pickles_are_not(tmp_path, capsys, refused):
    model = Victim()
    old_layout(exported(model), tmp_path / "m.pt2")
    found = torch.export.load(exported_archive.safe_archive(tmp_path / "m.pt2")).module()
    x = torch.randn(5, 4)
    assert torch.equal(found(x)["out"], model(x)["out"])
    trace = tmp_path / "trace"
    old_layout(exported(model), tmp_path / "m.pt2", pickled(str(trace)))
    assert "serialized_state_dict.pt that holds more than tensors" in refused(tmp_path / "m.pt2")
    assert not trace.exists()
    load_as_torch_does(tmp_path / "m.pt2", run=False)
    assert trace.exists()


# Honest archives


class Reused(nn.Module):
    """Modules called twice, odd names of parts, tied and expanded tensors, and buffers that are not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"a-b c/d": nn.Linear(4, 4), "größe": nn.ReLU(), "p->q": nn.Linear(4, 4)})
        self.tied = self.parts["a-b c/d"].weight
        self.scale = nn.ParameterDict({"x:y": nn.Parameter(torch.ones(1).expand(4))})
        self.register_buffer("table", torch.arange(16.0).view(4, 4).t(), persistent=False)
        self.register_buffer("empty", torch.zeros(0, 4))

    def forward(self, input):
        h = self.parts["größe"](self.parts["a-b c/d"](input)) @ self.table
        h = self.parts["größe"](self.parts["a-b c/d"](h)) * self.scale["x:y"] + input @ self.tied
        return {"logits": self.parts["p->q"](h), 3: (h, [h + self.empty.sum()])}


class Frozen(nn.Module):
    """A part without gradients, which torch.export keeps as a graph within the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            h = self.first(x).relu()
        return self.last(h)


class Sizes(nn.Module):
    """Arithmetic with symbolic sizes, in integers, floats and comparisons; strings and constants of operators."""

    def forward(self, x):
        n, c, h, w = x.shape
        x = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect").relu()
        x = nn.functional.interpolate(x, size=(h // 2 + 1, max(w, 3)), mode="bilinear") * (1.5 / (h * w)) ** 0.5
        x = torch.einsum("bchw,cd->bdhw", x, torch.eye(c)).clamp(-1, float("inf"))
        return torch.div(x.flatten(2), h, rounding_mode=None).view(n, c, -1).mean(2)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.ReLU6()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    )


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 2))


DIM = torch.export.Dim
HONEST: dict[str, Callable[[], tuple[torch.export.ExportedProgram, torch.Tensor]]] = {
    "mlp": lambda: (exported(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))), torch.randn(5, 4)),
    "bfloat16": lambda: (
        exported(Victim().bfloat16(), torch.zeros(6, 4).bfloat16(), strict=True),
        torch.randn(5, 4).bfloat16(),
    ),
    "decomposed": lambda: (exported(Victim()).run_decompositions(), torch.randn(5, 4)),
    "static": lambda: (exported(Victim(), shapes=None), torch.randn(6, 4)),
    "range": lambda: (exported(Victim(), shapes=({0: DIM("batch", min=2, max=1000)},)), torch.randn(5, 4)),
    "derived": lambda: (exported(nn.ReLU(), shapes=({0: 3 * DIM("third", max=99)},)), torch.randn(6, 4)),
    "reused": lambda: (exported(Reused()), torch.randn(5, 4)),
    "frozen": lambda: (exported(Frozen()), torch.randn(5, 4)),
    "signature": lambda: (exported(Victim(), preserve_module_call_signature=("gate",)), torch.randn(5, 4)),
    "sizes": lambda: (
        exported(Sizes(), torch.zeros(3, 2, 8, 6), shapes=({0: DIM.AUTO, 2: DIM("height", max=512), 3: DIM.DYNAMIC},)),
        torch.randn(5, 2, 8, 6),
    ),
    "convolutional": lambda: (
        exported(convolutional(), torch.zeros(3, 2, 8, 6), shapes=((AUTO, STATIC, AUTO, AUTO),)),
        torch.randn(5, 2, 8, 6),
    ),
    "transformer": lambda: (
        exported(transformer(), torch.zeros(4, 3, 8), shapes=({0: DIM.AUTO},)),
        torch.randn(5, 3, 8),
    ),
}


@pytest.mark.part(3)
@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("kind", HONEST)
def test_honest_archives_load_as_torch_loads_them(kind, tmp_path):
    program, x = HONEST[kind]()
    extra = {"notes/a b.txt": "hello"} if kind == "mlp" else None
    torch.export.save(program, tmp_path / "m.pt2", extra_files=extra)
    wanted, found = (
        torch.export.load(tmp_path / "m.pt2"),
        torch.export.load(exported_archive.safe_archive(tmp_path / "m.pt2")),
    )
    outputs = [torch.utils._pytree.tree_leaves(each.module()(x)) for each in (wanted, found)]
    assert len(outputs[0]) == len(outputs[1]) > 0
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*outputs, strict=True))
    assert str(wanted.range_constraints) == str(found.range_constraints)
    assert str(wanted.graph) == str(found.graph) and str(wanted.graph_signature) == str(found.graph_signature)
    for name, tensor in wanted.state_dict.items():
        assert torch.equal(found.state_dict[name], tensor) and found.state_dict[name].stride() == tensor.stride()
    assert str(plr.explain(wanted, x)) == str(plr.explain(found, x))


# Files that are no archives, or odd ones


def patched(data: bytes, at: str, offset: int, form: str, value: int) -> bytes:
    """A zip file with a number changed in the first record of a kind."""
    start = data.index({"local": b"PK\x03\x04", "central": b"PK\x01\x02", "end": b"PK\x05\x06"}[at]) + offset
    return data[:start] + struct.pack(form, value) + data[start + struct.calcsize(form) :]


ODD_FILES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "without a beginning": lambda data: data[100:],
    "encrypted": lambda data: patched(patched(data, "local", 6, "<H", 1), "central", 8, "<H", 1),
    "directory at a wrong place": lambda data: patched(data, "end", 16, "<I", 7),
    "directory of a wrong size": lambda data: patched(data, "end", 12, "<I", 7),
    "directory with an unknown method": lambda data: patched(data, "central", 10, "<H", 99),
    "directory with a huge size": lambda data: patched(
        patched(data, "central", 24, "<I", 2**31), "central", 20, "<I", 2**31
    ),
    "directory with sizes that differ": lambda data: patched(data, "central", 24, "<I", 2**31),
    "directory with another name": lambda data: (
        data[: data.rindex(b"data/weights/weight_0")] + b"X" + data[data.rindex(b"data/weights/weight_0") + 1 :]
    ),
    "other bytes than its checksum": lambda data: (
        data.replace(b"ExportedProgram", b"ExportedPrograM")
        if b"ExportedProgram" in data
        else patched(data, "local", 30 + 60, "<B", 255)
    ),
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_odd_zip_files_are_refused(kind, honest, tmp_path, refused):
    parts = {**dict(entries(honest)), SAMPLES: b""}  # which are a zip file, too
    write(tmp_path / "plain.pt2", list(parts.items()))
    (tmp_path / "m.pt2").write_bytes(ODD_FILES[kind]((tmp_path / "plain.pt2").read_bytes()))
    refused(tmp_path / "m.pt2")


ODD_NAMES = ["/etc/passwd", "../up", "data/../../up", "a//b", "back\\slash", "line\nbreak", "escape\x1b[2J"]
ODD_NAMES += ["data/aotinductor/model/model.so", "data/constants/custom_obj_0", "models/other.json", "unknown"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_entries_are_refused(name, honest, tmp_path, refused):
    write(tmp_path / "m.pt2", [*entries(honest), (name, b"")])
    text = refused(tmp_path / "m.pt2")
    assert "\x1b" not in text and ("entry" in text or "compiled code" in text)


def test_compressed_entries_are_refused(honest, tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "m.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries(honest):
            archive.writestr(f"archive/{name}", data)
    assert "is compressed" in refused(tmp_path / "m.pt2")


def test_sizes_are_compared_with_the_memory_before_they_are_read(honest, tmp_path, monkeypatch, refused):
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "1000")
    assert "more than the 1000 that may be used here" in refused(honest)
    monkeypatch.delenv("PYLINREGION_MEMORY_BUDGET")
    parts = dict(entries(honest))
    config = json.loads(parts[WEIGHTS])
    config["config"]["first.weight"]["tensor_meta"].update(sizes=[{"as_int": 2**40}], strides=[{"as_int": 0}])
    parts[WEIGHTS] = json.dumps(config).encode()
    write(tmp_path / "m.pt2", list(parts.items()))
    assert "more than there is memory for" in refused(tmp_path / "m.pt2")


DOCUMENTS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff",
    b"[" * 100_000,
    b'{"config": []}',
    b'{"config": {"a": {}}}',
    b'{"graph_module": 3}',
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(document[:30]) for document in DOCUMENTS])
@pytest.mark.parametrize("part", [PROGRAM, WEIGHTS, CONSTANTS])
def test_documents_that_are_none_are_refused(part, document, honest, tmp_path, refused):
    write(tmp_path / "m.pt2", list({**dict(entries(honest)), part: document}.items()))
    refused(tmp_path / "m.pt2")


def test_weights_exported_without_their_numbers_are_refused(honest, tmp_path, refused):
    """Zeros would be taken for them."""
    write(tmp_path / "m.pt2", list({**dict(entries(honest)), "data/weights/weight_0": b""}.items()))
    assert "without its numbers" in refused(tmp_path / "m.pt2")


def test_every_string_of_the_schema_has_a_rule():
    """What a later torch adds is refused until someone has looked at what torch does with it."""
    schema, places, seen = pytest.importorskip("torch._export.serde.schema"), set(), set()

    def walk(kind: Any, place: tuple[str, ...]) -> None:
        if typing.get_origin(kind) is dict:
            places.add((*place, "keys"))
            kind = typing.get_args(kind)[1]
        for part in typing.get_args(kind):
            walk(part, place)
        if kind is str:
            places.add(place)
        if dataclasses.is_dataclass(kind) and kind not in seen and kind.__name__ not in program_document._REFUSED:
            seen.add(kind)
            hints = typing.get_type_hints(kind, globalns=vars(schema))
            for field in dataclasses.fields(kind):
                if (kind.__name__, field.name) not in program_document._DROPPED:
                    walk(hints[field.name], (kind.__name__, field.name))

    walk(schema.ExportedProgram, ())
    assert len(seen) > 20 and ("SymExpr", "expr_str") in places
    without = {place[0] for place in places if place not in program_document._RULES}
    # Objects, outputs that are gradients, and dictionaries of arguments: no program that is counted has them.
    assert without <= {
        "Graph",
        "InputToCustomObjSpec",
        "GradientToParameterSpec",
        "GradientToUserInputSpec",
        "Argument",
    }
    assert all(
        place in program_document._RULES
        for place in places
        if place[0] in ("Graph", "Argument")
        if place[1] not in ("custom_obj_values", "as_string_to_argument")
    )


def mutated(value: Any, rng: random.Random, trace: str) -> Any:
    """A document with one place in it changed to something odd."""
    places: list[tuple[Any, Any]] = []

    def walk(found: Any) -> None:
        for key, part in found.items() if isinstance(found, dict) else enumerate(found):
            places.append((found, key))
            if isinstance(part, (dict, list)):
                walk(part)

    walk(value)
    container, key = rng.choice(places)
    odd = [None, True, -1, 2**70, 1.5, "", "x", "\n", "__class__", {}, [], [[]], {"as_int": 0}, {"": 1}, float("nan")]
    odd += [touch(trace), f"{touch(trace)} or Symbol('s77')", f"x, _={touch(trace)}", f"x':{touch(trace)}, 'x"]
    if isinstance(container, dict) and rng.random() < 0.2:
        container[rng.choice(["evil", "as_string", "as_operator", ""])] = container.pop(key)
    else:
        container[key] = rng.choice([*odd, rng.choice(places)[1]])
    return value


@pytest.mark.parametrize("part", [PROGRAM, WEIGHTS, CONSTANTS])
def test_mutated_documents_end_with_a_line_or_as_they_were(part, honest, tmp_path, capsys):
    parts, rng, trace = dict(entries(honest)), random.Random(0), tmp_path / "trace"
    codes = set()
    for _ in range(60 if part == PROGRAM else 15):
        text = json.dumps(mutated(json.loads(parts[part]), rng, str(trace)))
        write(tmp_path / "m.pt2", list({**parts, part: text.encode()}.items()))
        code = main(["explain", str(tmp_path / "m.pt2"), "--shape", "4"])
        out, err = capsys.readouterr()
        assert (code, bool(out)) in ((0, True), (1, False)), text
        assert not trace.exists(), text
        assert code == 0 or (err.count("\n") == 1 and err.startswith("pylinregion: error: ")), err
        codes.add(code)
    assert 1 in codes and (part != PROGRAM or 0 in codes)  # the short documents have little that may change
