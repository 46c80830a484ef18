"""The examples of docs/parts.md."""

import doctest
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "parts.md"


def test_examples_run():
    fenced = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    parser = doctest.DocTestParser()
    examples = [example for block in fenced for example in parser.get_examples(block)]
    assert len(fenced) >= 8 and len(examples) >= 25
    test = doctest.DocTest(examples, {}, PAGE.name, str(PAGE), 0, None)
    failed, tried = doctest.DocTestRunner().run(test)
    assert (failed, tried) == (0, len(examples))
