"""Records as JSON and back: every kind of document, what is missing or wrong by its place, the files of results."""

import json
import math
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import pytest
from made_up import make_report, parsed

import robcomp
from robcomp.errors import UserError
from robcomp.report.accuracy import AttackAccuracy
from robcomp.report.records import Document, from_json, keys, meaning, required, to_json
from robcomp.report.results import Analysis, PrunedLayer
from robcomp.report.schema import Report

RESULTS = Path(__file__).parents[2] / "results"
DOCUMENTS = {
    kind.SCHEMA: kind
    for parent in (Document, Analysis)
    for kind in parent.__subclasses__()
    if "SCHEMA" in vars(kind) and kind.__module__.startswith("robcomp.")
}
KINDS = pytest.mark.parametrize("kind", DOCUMENTS.values(), ids=lambda kind: kind.__name__)


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A record in a record."""

    number: int = meaning("a number")
    share: float | None = meaning("a share", default=None)


@dataclass(frozen=True, kw_only=True)
class Made(Document):
    """A document with a field of every form."""

    SCHEMA: ClassVar[str] = "robcomp-made/2"
    AGAIN: ClassVar[str] = "make the made thing again"

    text: str = meaning("a text")
    whole: int = meaning("a whole number")
    real: float = meaning("a number")
    yes: bool = meaning("whether")
    pair: tuple[float, float] = meaning("two numbers")
    names: list[str] = meaning("names")
    inner: Inner = meaning("a record")
    many: list[Inner] = meaning("records")
    by_name: dict[str, Inner] = meaning("records by name")
    anything: dict[str, Any] = meaning("open keys")
    perhaps: float | None = meaning("a number or nothing")
    some: int | None = meaning("a number that may be absent", default=None)
    marked: bool = meaning("whether, mostly not", default=False)
    later: list[Inner] = meaning("records that may be absent", default=list)


WHOLE = {
    "schema": "robcomp-made/2",
    "robcomp": "0.1.0",
    "text": "a",
    "whole": 1,
    "real": 0.5,
    "yes": False,
    "pair": [0, 1.5],
    "names": ["a", "b"],
    "inner": {"number": 1},
    "many": [{"number": 2}, {"number": 3, "share": 0.25}],
    "by_name": {"pgd": {"number": 4}},
    "anything": {"steps": 7, "loss": None, "list": [1, "a"]},
    "perhaps": None,
}


def made(**changes: Any) -> Made:
    return Made.parse({**WHOLE, **changes}, "the file")


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        made(**changes)
    return str(caught.value)


def example(kind: Any, numbers: Iterator[int], optional: bool) -> Any:
    """A value of the type `kind` in which no number and no text occurs twice; records with or without their `optional`
    keys."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        held = {f.name: hints[f.name] for f in fields(kind) if optional or required(f)}
        return kind(**{name: example(hint, numbers, optional) for name, hint in held.items()})
    if origin is types.UnionType:
        return example(inner[0], numbers, optional)
    if origin is list:
        return [example(inner[0], numbers, optional) for _ in range(2)]
    if origin is tuple:
        return tuple(example(part, numbers, optional) for part in inner)
    if origin is dict:
        return {f"name {next(numbers)}": example(inner[1], numbers, optional) for _ in range(2)}
    number = next(numbers)
    return {int: number, float: number + 0.5, str: f"text {number}", bool: True, Any: {"key": [number, None]}}[kind]


def document(kind: type[Document], optional: bool = True) -> Document:
    return replace(example(kind, count(), optional), schema=kind.SCHEMA)


def test_all_kinds_of_documents_are_here() -> None:
    assert {schema.split("/")[0].removeprefix("robcomp-") for schema in DOCUMENTS} == {
        *("report", "curve", "transfer", "combine", "sensitivity", "histogram", "losses", "compare", "table", "plan"),
    }


@KINDS
@pytest.mark.parametrize("optional", [True, False])
def test_every_document_comes_back_as_it_was_written(kind: type[Document], optional: bool, tmp_path: Path) -> None:
    given = document(kind, optional)
    given.write(tmp_path / "file.json")
    back = kind.read(tmp_path / "file.json")
    assert back == given
    assert type(back) is kind
    assert json.loads(back.to_json()) == json.loads((tmp_path / "file.json").read_text())


@KINDS
def test_no_key_of_a_document_can_be_left_out_unless_it_is_marked(kind: type[Document]) -> None:
    content = to_json(document(kind))
    for f in fields(kind):
        less = {name: value for name, value in content.items() if name != f.name}
        if required(f) and f.name != "schema":
            with pytest.raises(UserError, match=rf"it lacks {f.name}; docs/report\.md lists all keys\. "):
                kind.parse(less, "it")
        elif not required(f):
            assert f.name not in to_json(kind.parse(less, "it"))


@KINDS
def test_every_key_has_a_path_and_a_meaning(kind: type[Document]) -> None:
    listed = dict(keys(kind))
    assert all(len(said) > 3 for said in listed.values())

    def walk(content: Any, place: str, inside: Any) -> None:
        hints = get_type_hints(inside)
        for f in fields(inside):
            path = f"{place}{f.name}"
            assert path + ("" if required(f) else "?") in listed
            seen.add(path + ("" if required(f) else "?"))
            value, hint = content[f.name], hints[f.name]
            mark = ""
            while not is_dataclass(hint) and get_args(hint):
                several = get_origin(hint)
                mark += {list: "[]", dict: ".*"}.get(several, "")
                value = (
                    next(iter(value.values())) if several is dict else value[0] if several in (list, tuple) else value
                )
                hint = get_args(hint)[1 if several is dict else 0]
            if is_dataclass(hint):
                walk(value, f"{path}{mark}.", hint)

    seen: set[str] = set()
    walk(to_json(document(kind)), "", kind)
    assert seen == set(listed)


def test_paths_of_the_report() -> None:
    listed = [path for path, _ in keys(Report)]
    for path in (
        *("schema", "robcomp", "run.settings?", "stages[].name", "accuracy.clean.interval"),
        *("accuracy.attacks.*.median_distance?", "accuracy.worst_cases?", "accuracy.worst_cases[].eps", "verdict?"),
        *("verdict.checks[].flag", "density.layers[].tensors[].bytes?", "evaluation.data.checksum"),
    ):
        assert path in listed
    assert listed.index("run") + 1 == listed.index("run.id")
    assert len(listed) == len(set(listed))


def test_a_new_document_carries_schema_and_version() -> None:
    given = {name: value for name, value in vars(made()).items() if name not in ("schema", "robcomp")}
    new = Made.make(**given)
    assert (new.schema, new.robcomp) == ("robcomp-made/2", robcomp.__version__)


def test_defaults_are_left_out_and_come_back() -> None:
    assert to_json(made()) == WHOLE
    assert (made().some, made().marked, made().later, made().inner.share) == (None, False, [], None)
    said = {"some": 0, "marked": True, "later": [{"number": 1}]}  # 0 is no default
    assert to_json(made(**said)) == WHOLE | said
    assert to_json(made(some=None, marked=False, later=[])) == WHOLE
    assert made().later is not made().later


def test_missing_keys_are_named_with_their_places() -> None:
    said = refusal(inner={}, many=[{"number": 1}, {"share": 1}], by_name={"fab": {}})
    assert said == (
        "the file lacks inner.number, many[1].number, by_name.fab.number; docs/report.md lists all keys. "
        "Make the made thing again."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": 5}, "text = 5, where text belongs"),
        ({"text": None}, "text = null, where text belongs"),
        ({"whole": True}, "whole = true, where a whole number belongs"),
        ({"whole": 1.5}, "whole = 1.5, where a whole number belongs"),
        ({"whole": None}, "whole = null, where a whole number belongs"),
        ({"real": True}, "real = true, where a number belongs"),
        ({"real": "0.5"}, 'real = "0.5", where a number belongs'),
        ({"real": None}, "real = null, where a number belongs"),
        ({"yes": 1}, "yes = 1, where true or false belongs"),
        ({"yes": None}, "yes = null, where true or false belongs"),
        ({"pair": [1]}, "pair = [1], where a list of 2 belongs"),
        ({"pair": [1, 2, 3]}, "pair = [1, 2, 3], where a list of 2 belongs"),
        ({"pair": [1, "a"]}, 'pair[1] = "a", where a number belongs'),
        ({"pair": {"low": 0}}, 'pair = {"low": 0}, where a list of 2 belongs'),
        ({"names": "a"}, 'names = "a", where a list belongs'),
        ({"names": None}, "names = null, where a list belongs"),
        ({"names": ["a", 2]}, "names[1] = 2, where text belongs"),
        ({"inner": [1]}, "inner = [1], where a mapping belongs"),
        ({"inner": None}, "inner = null, where a mapping belongs"),
        ({"inner": {"number": "1"}}, 'inner.number = "1", where a whole number belongs'),
        ({"many": {}}, "many = {}, where a list belongs"),
        ({"many": [{"number": 1}, 7]}, "many[1] = 7, where a mapping belongs"),
        ({"by_name": []}, "by_name = [], where a mapping belongs"),
        ({"by_name": {"pgd": {"number": None}}}, "by_name.pgd.number = null, where a whole number belongs"),
        ({"perhaps": "much"}, 'perhaps = "much", where a number belongs'),
        ({"some": 0.5}, "some = 0.5, where a whole number belongs"),
        ({"later": None}, "later = null, where a list belongs"),
    ],
)
def test_what_is_of_another_type_is_named_with_its_place(changes: dict[str, Any], said: str) -> None:
    assert refusal(**changes) == (f"the file has {said}; docs/report.md lists all keys. Make the made thing again.")


def test_all_faults_are_told_at_once() -> None:
    assert "lacks inner.number and has text = 5, where text belongs, yes = 0, where" in refusal(text=5, yes=0, inner={})


def test_a_long_value_is_cut_in_the_sentence() -> None:
    assert len(refusal(whole="x" * 1000)) < 250


def test_unknown_keys_are_passed_over() -> None:
    more = {"latency": 3, "inner": {"number": 1, "more": {}}, "many": [{**item, "x": 1} for item in WHOLE["many"]]}
    assert made(**more) == made()


def test_open_keys_are_kept_as_they_are() -> None:
    assert made().anything == WHOLE["anything"]


def test_a_whole_number_may_stand_for_a_number() -> None:
    assert made(real=2).real == 2
    assert made().pair == (0, 1.5)


def test_null_is_infinity_where_the_key_may_be_absent() -> None:
    attack = parsed(make_report()).accuracy.attacks["pgd"]
    assert "median_distance" not in to_json(attack)
    far = to_json(replace(attack, median_distance=math.inf))
    assert far["median_distance"] is None
    assert from_json(AttackAccuracy, far, "it").median_distance == math.inf
    assert from_json(AttackAccuracy, to_json(attack), "it").median_distance is None
    assert made(inner={"number": 1, "share": None}).inner.share == math.inf
    assert made(some=None).some is None  # no whole number is infinite


def test_null_is_nothing_where_the_key_must_be_there() -> None:
    assert made(perhaps=None).perhaps is None
    assert to_json(made())["perhaps"] is None
    layer = example(PrunedLayer, count(), True)
    back = from_json(PrunedLayer, to_json(replace(layer, clean_reduction_percent=None)), "it")
    assert back.clean_reduction_percent is None
    assert back.robust_reduction_percent == layer.robust_reduction_percent


@pytest.mark.parametrize("schema", ["robcomp-made/1", "robcomp-made/3", "robcomp-report/3", "", None, 2])
def test_another_version_is_refused_with_what_to_do(schema: object) -> None:
    said = refusal(schema=schema)
    assert said.startswith(f"the file has schema {schema!r}, and this robcomp reads 'robcomp-made/2'")
    assert said.endswith("Make the made thing again.")


@pytest.mark.parametrize("content", [[], "robcomp-made/2", 3, None, {}])
def test_what_is_no_document_is_refused(content: object) -> None:
    with pytest.raises(UserError, match="the file has schema None"):
        Made.parse(content, "the file")


def test_files_that_cannot_be_read_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    with pytest.raises(UserError, match=rf"^no made at {path}\.$"):
        Made.read(path)
    path.write_text("{")
    with pytest.raises(UserError, match=rf"^{path} is not JSON \(.*\); delete it and make the made thing again\.$"):
        Made.read(path)
    with pytest.raises(UserError, match=f"no made at {path}/below"):
        Made.read(path / "below")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not JSON"):
        Made.read(path)
    path.write_text(json.dumps(WHOLE | {"whole": "1"}))
    with pytest.raises(UserError, match=f"^{path} has whole = "):
        Made.read(path)


def test_a_document_that_json_cannot_hold_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    made().write(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(made(), real=math.nan).write(path)
    assert Made.read(path) == made()
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.json"]


def test_every_file_under_results_is_whole() -> None:
    files = sorted(path for path in RESULTS.rglob("*.json") if path.parent.name != "benchmarks")  # those are of scripts
    assert len(files) > 100
    for path in files:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert to_json(DOCUMENTS[content["schema"]].read(path)) == content, path
