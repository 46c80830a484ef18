"""The examples of docs/measures.md, and that it has every measure."""

import doctest
import re
from pathlib import Path

from pylinregion import measures

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"


def test_examples_run():
    text = PAGE.read_text(encoding="utf-8")
    fenced = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    parser = doctest.DocTestParser()
    examples = [example for block in fenced for example in parser.get_examples(block)]
    assert len(fenced) >= 8 and len(examples) >= 30
    test = doctest.DocTest(examples, {}, PAGE.name, str(PAGE), 0, None)
    failed, tried = doctest.DocTestRunner().run(test)
    assert (failed, tried) == (0, len(examples))


def test_every_measure_has_its_place():
    text = PAGE.read_text(encoding="utf-8")
    functions = [name for name in measures.__all__ if name[0].islower()]
    assert len(functions) == 18
    for name in functions:
        assert f"**`{name}`**" in text, name
        docs = getattr(measures, name).__doc__
        assert all(part in docs for part in ("Args:", "Returns:", "Raises:", "Source:", "arXiv", ">>>")), name
