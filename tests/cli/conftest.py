import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cases.command_line import FACTORIES, export, make_net
from pylinregion.cli.commands import main


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in every form, and points."""
    safetensors = pytest.importorskip("safetensors.torch")
    folder = tmp_path_factory.mktemp("made")
    model = make_net()
    export(model, folder / "m.pt2")
    export(model, folder / "static.pt2", dynamic=False)
    (folder / "factories_of_the_tests.py").write_text(FACTORIES)
    state = model.state_dict()
    safetensors.save_file(state, folder / "w.safetensors")
    safetensors.save_file({name: tensor.double() + 1e-12 for name, tensor in state.items()}, folder / "w64.safetensors")
    safetensors.save_file({name: state[name] for name in list(state)[1:]}, folder / "partial.safetensors")
    x = np.random.default_rng(0).normal(size=(20, 4))
    np.save(folder / "x.npy", x.astype(np.float32))
    np.save(folder / "x64.npy", x)
    np.save(folder / "wide.npy", np.zeros((2, 5), dtype=np.float32))
    np.save(folder / "words.npy", np.array([["a"] * 4]))
    np.save(folder / "int.npy", 100 * np.arange(8).reshape(2, 4).astype(">u2"))
    np.save(folder / "one.npy", x[:1].astype(np.float32))
    np.save(folder / "none.npy", x[:0].astype(np.float32))
    return folder


@pytest.fixture
def in_made(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with one line, and gives the line after the prefix."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        errors = [line for line in err.splitlines() if not line.startswith("pylinregion: note: ")]
        assert out == "" and len(errors) == 1 and errors[0].startswith("pylinregion: error: "), (out, err)
        return errors[0].removeprefix("pylinregion: error: ")

    return run
