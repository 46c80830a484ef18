from pathlib import Path

import pytest

from cases import parts, processes

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


SAYS = {
    "cnn_by_layer": "local complexity after training",
    "displacements": "both ways find the same: True",
    "networks": "regions around a point",
    "slice_of_a_resnet": "4.convolutions.2: ",
    "slice_through_three_digits": "the decision boundary has",
}


ARGUMENTS = {
    "networks": [] if parts.LONG else ["PointNet", "critic, of actions"],
    "slice_of_a_resnet": [] if parts.LONG else ["resnet.png", "2", "2"],
}


@pytest.mark.part(5)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path):
    ran = processes.run(path.read_text(encoding="utf-8"), *ARGUMENTS.get(path.stem, []), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert SAYS[path.stem] in ran.stdout and not ran.stderr
    if path.stem == "slice_through_three_digits":
        assert (tmp_path / "slice_through_three_digits.png").stat().st_size > 100_000
