"""The numbers of docs/experiments/README.md are read out of it, and compared with the records beside it."""

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from pylinregion.experiments import preset
from pylinregion.monitor.sinks import JSONLines

FOLDER = Path(__file__).parents[2] / "docs" / "experiments"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
Record = dict[str, float]
RECORDS = {path.stem: JSONLines.read(path) for path in sorted(FOLDER.glob("*.jsonl"))}
PLAIN, SCALED, DEEP = (RECORDS[name] for name in ("mnist-mlp", "mnist-mlp-scaled", "deep-mlp-small"))
SEEDS = range(3)
BEHIND_THE_FIRST = [f"test/rank/layer/{number}" for number in range(4, 16, 2)]


def hidden(record: Record) -> float:
    return sum(record[f"train/lc/layer/{number}"] for number in (2, 4, 6))


def at(records: Sequence[Record], step: int) -> Record:
    (found,) = (record for record in records if record["step"] == step)
    return found


def between(records: Sequence[Record], low: int, high: int) -> list[Record]:
    return [record for record in records if low <= record["step"] <= high]


def values(records: Iterable[Record], key: str, factor: float = 1.0) -> list[float]:
    return [factor * record[key] for record in records]


def reached(records: Sequence[Record], key: str, share: float) -> float:
    """The first step from which on a value is at least that, for good."""
    last = max((number for number, record in enumerate(records) if record[key] < share), default=-1)
    return records[last + 1]["step"]


def first(records: Sequence[Record], key: str, share: float) -> float:
    return next(record["step"] for record in records if record[key] >= share)


def extreme(choose: Callable, records: Sequence[Record], of: Callable[[Record], float]) -> tuple[float, float]:
    """The value and its step."""
    record = choose(records, key=of)
    return of(record), record["step"]


def lc(part: str) -> Callable[[Record], float]:
    return lambda record: record[f"{part}/lc"]


def regions(record: Record) -> float:
    return record["train/slice/regions"]


def robust(eps: str) -> Callable[[Record], float]:
    return lambda record: 100 * record[f"test/robust/{eps}"]


def small(name: str, seed: int) -> list[Record]:
    return RECORDS[f"{name}-small-seed{seed}"]


def steps_to(name: str, key: str, share: float) -> list[float]:
    return [first(small(name, seed), key, share) for seed in SEEDS]


def rows() -> list[tuple[str, list[float]]]:
    """The table of section 3."""
    names = {"standard": "modular-addition", "commutative penalty": "commutative", "Gaussian noise": "perturbed"}
    found = []
    for title, name in names.items():
        pairs = zip(steps_to(name, "test/accuracy", 0.9), steps_to(name, "test/accuracy", 0.99), strict=True)
        found.append((f"| {title} | {{}}, {{}} | {{}}, {{}} | {{}}, {{}} |", [step for pair in pairs for step in pair]))
    return found


def claims() -> list[tuple[str, list[float]]]:
    """Pieces of the page with ``{}`` for each number, and what these are by the records."""
    early, late = between(PLAIN, 0, 100), between(PLAIN, 100, 100_000)
    trough = min(late, key=robust("0.06"))
    jumps = between(PLAIN, 1306, 9672)
    standard, penalty, noise = ("modular-addition", "commutative", "perturbed")
    mean = {name: sum(steps_to(name, "test/accuracy", 0.9)) / 3 for name in (standard, penalty, noise)}
    memorised = [first(small(name, s), "train/accuracy", 0.99) for name in (standard, penalty) for s in SEEDS]
    noisy = [first(small(noise, s), "train/accuracy", 0.99) for s in SEEDS]
    fallen = [100 * min(values(small(standard, s), "train/commutativity")) for s in SEEDS]
    passed = {
        name: [reached(small(name, s), "train/commutativity", 0.99) for s in SEEDS] for name in (standard, penalty)
    }
    complexity = [
        record[f"{part}/lc"]
        for name in (standard, penalty, noise)
        for seed in SEEDS
        for record in small(name, seed)
        for part in ("train", "test", "random")
    ]
    fitted = first(DEEP, "train/accuracy", 0.98)
    general = first(DEEP, "test/accuracy", 0.8)
    ranks = [record[key] for record in between(DEEP, 0, int(general)) for key in BEHIND_THE_FIRST]
    last = values([DEEP[-1]], BEHIND_THE_FIRST[0]) + [DEEP[-1][key] for key in BEHIND_THE_FIRST]
    deepest = BEHIND_THE_FIRST[-1]
    others = [at(DEEP, 16536)[key] for key in BEHIND_THE_FIRST[:-1]]
    hundred = between(SCALED, 0, 4000)
    mnist, modular, deep = (preset(name) for name in ("mnist-mlp", "modular-addition-small", "deep-mlp-small"))
    return [
        ("of its images: {} to train on", [mnist.data.train_points]),
        (
            "modulo {}, half of the pairs, a {}-layer transformer of width {} (the",
            [modular.data.modulus, modular.model.depth, modular.model.width],
        ),
        ("at a radius of {} in the space", [modular.measuring.radius]),
        (
            ": {} layers of width {}, initialisation times {}, {} of scikit-learn",
            [deep.model.depth, deep.model.width, deep.model.init_scale, deep.data.train_points],
        ),
        (
            "slice with radius {} around each of {} training",
            [mnist.measuring.slice_radius, mnist.measuring.slice_points],
        ),
        (
            "training points: start, least, step 670, end | {}, {} (step {}), {}, {} |",
            [
                PLAIN[0]["train/lc"],
                *extreme(min, early, lc("train")),
                at(PLAIN, 670)["train/lc"],
                PLAIN[-1]["train/lc"],
            ],
        ),
        (
            "alone: start, least, peak, end | {}, {} (step {}), {} (step {}), {} |",
            [hidden(PLAIN[0]), *extreme(min, early, hidden), *extreme(max, late, hidden), hidden(PLAIN[-1])],
        ),
        (
            "| at test points: start, least, peak, end | {}, {}, {} (step {}), {} |",
            [
                PLAIN[0]["test/lc"],
                min(values(early, "test/lc")),
                *extreme(max, late, lc("test")),
                PLAIN[-1]["test/lc"],
            ],
        ),
        ("| at random points: start, end | {}, {} |", values([PLAIN[0], PLAIN[-1]], "random/lc")),
        (
            "| test accuracy: plateau, end | {} %, {} % |",
            [max(values(PLAIN, "test/accuracy", 100)), 100 * PLAIN[-1]["test/accuracy"]],
        ),
        (
            "first peak, trough, end | {} % (step {}), {} %, {} % |",
            [*extreme(max, early, robust("0.06")), robust("0.06")(trough), robust("0.06")(PLAIN[-1])],
        ),
        (
            "| eps 0.20: trough, end | {} %, {} % ({} % at {}) |",
            [
                min(map(robust("0.2"), late)),
                robust("0.2")(PLAIN[-1]),
                *extreme(max, between(PLAIN, 20_000, 99_999), robust("0.2")),
            ],
        ),
        ("past the paper's peak, to {} at step {},", [*extreme(max, between(PLAIN, 100, 1500), lc("train"))]),
        (
            "jumps between {} and {} from step {} to step {},",
            [*[choose(values(jumps, "train/lc")) for choose in (min, max)], jumps[0]["step"], jumps[-1]["step"]],
        ),
        ("a late rise to {} that", [max(values(between(PLAIN, 20_000, 100_000), "random/lc"))]),
        ("| training accuracy above 99 % | step {} |", [first(SCALED, "train/accuracy", 0.99)]),
        (
            "at that step, at {}, {}, {} | {} %, {} %, {} %, {} % |",
            [18852, 26320, 100_000, *[100 * at(SCALED, n)["test/accuracy"] for n in (3554, 18852, 26320, 100_000)]],
        ),
        (
            "peak, dip, second peak, end | {}, {} (step {}), {} (step {}), {} (step {}), {} |",
            [
                SCALED[0]["train/lc"],
                *extreme(max, SCALED, lc("train")),
                *extreme(min, between(SCALED, 5863, 26320), lc("train")),
                *extreme(max, between(SCALED, 18852, 100_000), lc("train")),
                SCALED[-1]["train/lc"],
            ],
        ),
        (
            "| of hidden neurons alone | {}, {} (step {}), {} (step {}), {} (step {}), {} |",
            [
                hidden(SCALED[0]),
                *extreme(max, SCALED, hidden),
                *extreme(min, between(SCALED, 3008, 31100), hidden),
                *extreme(max, between(SCALED, 13503, 100_000), hidden),
                hidden(SCALED[-1]),
            ],
        ),
        ("eps 0.06, at {} | {} % |", [SCALED[-1]["step"], robust("0.06")(SCALED[-1])]),
        ("first peak {} of the 10 outputs", [at(SCALED, 5863)["train/lc/layer/output"]]),
        *rows(),
        ("99 % at step {} to {}, with noise at {} to {}.", [min(memorised), max(memorised), min(noisy), max(noisy)]),
        ("in the mean at {} instead of {} steps.", [mean[penalty], mean[standard]]),
        ("in the mean at {}: three seeds", [mean[noise]]),
        ("falls to {} to {} % while it memorises", [min(fallen), max(fallen)]),
        ("for good from step {} to {} on, long before", [min(passed[standard]), max(passed[standard])]),
        ("for good from step {} to {} on, before the training", [min(passed[penalty]), max(passed[penalty])]),
        ("is at most {} neurons here", [max(complexity)]),
        ("passes 98 % at step {}, test accuracy 80 % at step {}.", [fitted, general]),
        (
            "behind the first are {} to {} until then, and {} to {} at the end;",
            [min(ranks), max(ranks), min(last), max(last)],
        ),
        ("grows from {} to {}. The deepest", [DEEP[0]["test/rank/tunnel"], DEEP[-1]["test/rank/tunnel"]]),
        (
            "its rank is {}, {} and {} at steps {}, {} and {},",
            [*[at(DEEP, step)[deepest] for step in (493, 8896, 16536)], 493, 8896, 16536],
        ),
        ("still have {} to {}. But", [min(others), max(others)]),
        ("after step {}, not with its beginning", [16536]),
        (
            "their mean goes {}, {} (step {}), {} (step {}), {};",
            [regions(PLAIN[0]), *extreme(min, early, regions), *extreme(max, late[4:], regions), regions(PLAIN[-1])],
        ),
        (
            "hidden neurons goes {}, {} (step {}), {} (step {}), {} there",
            [hidden(PLAIN[0]), *extreme(min, early, hidden), *extreme(max, late, hidden), hidden(PLAIN[-1])],
        ),
        (
            "On `mnist-mlp-scaled` {}, {} (step {}), {} (step {}), {},",
            [
                regions(SCALED[0]),
                *extreme(min, hundred, regions),
                *extreme(max, SCALED, regions),
                regions(SCALED[-1]),
            ],
        ),
        (
            "with a dip to {} at step {} and a second peak of {} at step {},",
            [
                *extreme(min, between(SCALED, 3008, 31100), regions),
                *extreme(max, between(SCALED, 13503, 100_000), regions),
            ],
        ),
    ]


NUMBER = r"(\d+(?:\.\d+)?)"
TEXT = " ".join(PAGE.replace("**", "").split())


def pattern(piece: str) -> str:
    return re.escape(piece).replace(r"\{\}", NUMBER)


@pytest.mark.parametrize(("piece", "wanted"), claims())
def test_a_number_of_the_page_is_that_of_the_records(piece: str, wanted: list[float]) -> None:
    (found,) = re.finditer(pattern(piece), TEXT)
    assert len(wanted) == piece.count("{}") == len(found.groups())
    said = [Decimal(number) for number in found.groups()]
    exactly = [Decimal(repr(round(value, 9))) for value in wanted]  # means of small integers, but for the last bits
    assert [value.quantize(number, ROUND_HALF_UP) for value, number in zip(exactly, said, strict=True)] == said


# Of the papers, and words with numbers in them.
ELSEWHERE = (
    "a set of 10 000 of",
    "seed 0 unless",
    "step 670, end",
    "(4.0 at 1.1e4)",
    "eps 0.06: first",
    "eps 0.20: trough",
    "Float32, for time; the paper's code is float64",
    "nine wrong classes to 0.",
    "above 99 %",
    "eps 0.06, at",
    "long been 100 %",
    "Robustness at 0.06",
    "begun at 1e5 steps",
    "of the 10 outputs",
    "(the paper: modulo 113, 30 %, width 128)",
    "passes 90 % and 99 %",
    "| seed 0 | seed 1 | seed 2 |",
    "accuracy passes 99 % at",
    "brings 90 % sooner",
    "With seed 0 it reaches 99 % later",
    "seeds 0 and 1",
    "with seed 2,",
    "is above 99 % for",
    "30 % in the paper",
    "(the paper: 12 layers of width 400, times 8, 2000 points of MNIST)",
    "passes 98 % at",
    "accuracy 80 % at",
    "at least 335 of 400",
    "of figures 1 and 2",
)


def test_every_number_of_the_page_is_accounted_for() -> None:
    """It is a claim's, or it stands in a command, a heading, or the papers' column, or it is named above."""
    page = re.sub(r"```.*?```|!\[.*?\]\(.*?\)|^#.*?$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"^(\|(?:[^|\n]*\|){2})[^|\n]*\|$", r"\1", page, flags=re.MULTILINE)
    left = " ".join(page.replace("**", "").split())
    for piece in (*(piece for piece, _ in claims()), *ELSEWHERE):
        assert re.search(pattern(piece), TEXT), piece
        left = re.sub(pattern(piece), lambda found: re.sub(NUMBER, "", found.group()), left)
    left = re.sub(r"`[^`]*`", "", left)
    assert re.findall(r"\S* \S*\d\S* \S*", left) == []
