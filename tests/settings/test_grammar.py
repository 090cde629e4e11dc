"""Overrides that Hydra's grammar does not hold: the sentence names the word, what is wrong and what to write."""

import pytest

from robcomp.cli.parser import main
from robcomp.errors import UserError
from robcomp.settings import grammar
from robcomp.settings.compose import compose_config

pytestmark = pytest.mark.usefixtures("sandbox")

# The words, the one that is named, and what the sentence says
FAULTS = {
    "two_words": (["seed=1", "method", "al0"], "method", "write method=al0."),
    "blanks": (["method", "=", "al0"], "method", "write method=al0."),
    "blank_after": (["method", "=al0"], "method", "write method=al0."),
    "no_value": (["method.ratio"], "method.ratio", "it has no '='"),
    "colon": (["seed:3"], "seed:3", "write seed=3."),
    "no_key": (["=0.1"], "=0.1", "no key before '='"),
    "only_a_plus": (["+=0.1"], "+=0.1", "no key before '='"),
    "twice": (["seed=1", "method.ratio==0.1"], "method.ratio==0.1", "write method.ratio=0.1."),
    "twice_inside": (["out=a=b"], "out=a=b", "\"out='a=b'\""),
    "tab": (["method.ratio=0.1\tseed=2"], "method.ratio=0.1\tseed=2", "write method.ratio=0.1 seed=2,"),
    "blank_inside": (["method.ratio=0.1 seed=2"], "method.ratio=0.1 seed=2", "two overrides in one word"),
    "minus": (
        ["threat.eps=\u22120.1"],
        "threat.eps=\u22120.1",
        "looks like a minus; write threat.eps=-0.1",
    ),
    "curly": (["out=\u201cx\u201d"], "out=\u201cx\u201d", 'write out="x"'),
    "full_width": (["seed\uff1d3"], "seed\uff1d3", "write seed=3"),
    "narrow_blank": (["seed=\u00a03"], "seed=\u00a03", "looks like a blank"),
    "dash": (["-seed=3"], "-seed=3", "no dashes; write seed=3"),
    "bracket": (["seed=1", "schedule.dense.milestones=[1,2"], "schedule.dense.milestones=[1,2", "'[' is not closed"),
    "brace": (["+attack.attacks.x={attack: pgd"], "+attack.attacks.x={attack: pgd", "write '}' at the end"),
    "nested": (["+attack.attacks.x={a: [1}"], "+attack.attacks.x={a: [1}", "nothing opens the '}'"),
    "closed_only": (["seed=3]"], "seed=3]", "nothing opens the ']'"),
    "range": (["seed=range(0,3"], "seed=range(0,3", "write ')' at the end"),
    "quote": (["dataset.path='photos"], "dataset.path='photos", "in front of 'photos' is not closed"),
    "double_quote": (['dataset.path="photos'], 'dataset.path="photos', 'write " at both ends'),
    "comma": (["seed=0,"], "seed=0,", "one side of a comma; write seed=A,B"),
    "comma_and_blank": (["method=al0,", "atmc"], "method=al0,", "write method=al0,atmc"),
    "comma_in_a_list": (["dataset.shape=[1,,2]"], "dataset.shape=[1,,2]", "one side of a comma"),
    "function": (["seed=rnge(1,3)"], "seed=rnge(1,3)", "no function rnge()"),
    "arguments": (["seed=range(a,b)"], "seed=range(a,b)", "seed=range(1,4)"),
    "key": (["method#ratio=1"], "method#ratio=1", "holds '#'"),
    "parentheses": (["dataset.path=my photos (1)"], "dataset.path=my photos (1)", "\"dataset.path='my photos (1)'\""),
    "letters": (["out=größe"], "out=größe", "\"out='größe'\""),
    "apostrophe": (["out=it's"], "out=it's", "is not closed"),
    "empty": ([""], "", "it has no '='"),
}


@pytest.mark.parametrize(("words", "named", "said"), FAULTS.values(), ids=FAULTS)
def test_the_word_and_what_to_write(words: list[str], named: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        grammar.parse(words)
    text = str(refused.value)
    assert text.startswith(f"cannot read '{named}': ")
    assert said in text
    assert text.endswith(".")
    assert text.count("\n") == 0


@pytest.mark.parametrize(
    "word",
    ["a=b:c", "seed=3", "+a.b={x: 1}", "~a", "a='b=c'", "a=[1,2]", "a=x y", "a=", "a=1,2", "a=${b}", "a@b=c", "a=%"],
)
def test_what_hydra_reads_is_read(word: str) -> None:
    assert [grammar.line(override) for override in grammar.parse([word])] == [word]


@pytest.mark.parametrize("text", ["plain", "it's", "both ' and \"", "a, b = [c]", "größe (1)", "back\\slash", "ends\\"])
def test_any_text_can_be_quoted(text: str) -> None:
    (one, many) = grammar.parse([grammar.quoted("out", text), grammar.quoted_list("out", [text, "x"])])
    assert one.value() == text
    assert many.value() == [text, "x"]


# Of Hydra's own settings: the override, and what there is in its place
SETTINGS = {
    "hydra.run.dir=x": "out=DIR says where they go",
    "hydra.sweep.dir=x": "out=DIR says where they go",
    "hydra.sweep.subdir=x": "out=DIR says where they go",
    "hydra.output_subdir=null": "out=DIR says where they go",
    "hydra/launcher=joblib": "start a command for each part of the sweep",
    "hydra.launcher.n_jobs=2": "start a command for each part of the sweep",
    "hydra/sweeper=optuna": "no search over intervals",
    "hydra.mode=MULTIRUN": "add -m",
    "hydra.job.chdir=true": "stays in the folder where it is started",
    "hydra.job.name=x": "names a run by its data set, model and method",
    "hydra.verbose=true": "log.jsonl",
    "hydra/job_logging=disabled": "log.jsonl",
    "hydra/hydra_logging=disabled": "log.jsonl",
    "+hydra.callbacks.x=y": "no Hydra callbacks",
    "hydra.help.header=x": "written by robcomp",
    "hydra.foo=x": "uses hydra.searchpath alone",
    "++hydra.searchpath=[x]": "without a plus",
}


@pytest.mark.parametrize(("override", "way"), SETTINGS.items())
def test_hydras_own_settings_are_refused_with_what_there_is_instead(override: str, way: str) -> None:
    with pytest.raises(UserError) as refused:
        compose_config([override])
    assert str(refused.value).startswith(f"{override} would change nothing: ")
    assert way in str(refused.value)
    assert str(refused.value).endswith(".")


OPTIONS = {
    "-cn other": "+experiment=NAME",
    "--config-name=other": "+experiment=NAME",
    "-cp other": "--config-dir DIR",
    "--config-path other": "--config-dir DIR",
    "--run": "leave it out",
    "--info defaults": "--cfg job",
    "-i": "--cfg job",
    "--hydra-help": "robcomp train --help",
    "--experimental-rerun x": "report.json",
    "-sc install=bash": "robcomp completion bash",
    "--shell-completion install=bash": "robcomp completion bash",
    "--method=al0": "write method=al0.",
    "--method al0": "write method=al0.",
    "--method.ratio 0.1": "write method.ratio=0.1.",
    "--resolve": "add --cfg job",
    "--package method": "add --cfg job",
}


@pytest.mark.parametrize(("typed", "way"), OPTIONS.items())
def test_options_that_hydra_has_and_robcomp_has_not(typed: str, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "seed=1", *typed.split(" ")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("robcomp: ")
    assert way in line
    assert line.endswith(".")
    assert typed.split()[0].partition("=")[0] in line or "--cfg" in line


# What is no fault of the grammar, and yet changes nothing or is not there
PLACES = {
    "~seed": "~seed would change nothing",
    "~method.ratio": "~method.ratio would change nothing",
    "~method": "~method would change nothing",
    "~schedule.dense": "~schedule.dense would change nothing",
    "+method=al0": "write method=al0.",
    "method@foo=al0": "write method=al0.",
    "method.ratio=0.1,0.2": "is a sweep of several runs; add -m",
    "seed=range(1,4)": "is a sweep of several runs; add -m",
    "dataset.shape=1,28,28": "A list takes brackets",
    "method.ratio=interval(0.1,0.2)": "has no list of values",
    "attack.attacks.strong.eps=8/255": "attack=quick has no attack 'strong'; set one of fgsm, pgd, margin, apgd_t,",
    "attack.attacks.strong={eps: 0.1}": "has no attack 'strong'; set one of apgd_t, fgsm, margin, pgd, square,",
    "attack.attacks.pgd.restart=3": "unknown setting of attack.attacks.pgd 'restart'",
}


@pytest.mark.parametrize(("override", "said"), PLACES.items())
def test_what_has_no_place_is_refused(override: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        compose_config([override])
    assert said in str(refused.value)


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_any_setting_of_an_attack_of_the_suite_is_set_without_a_plus(plus: str) -> None:
    pgd = compose_config([f"{plus}attack.attacks.pgd.restarts=3"]).attack.build()["pgd"]
    assert (pgd.settings()["restarts"], pgd.settings()["steps"]) == (3, 20)


def test_all_settings_of_an_attack_at_once_and_an_attack_added_in_the_same_line() -> None:
    every = ["attack.attacks.pgd.eps=0.1", "attack.attacks.pgd.norm=L2", "attack.attacks.pgd.steps=5"]
    assert compose_config(every).attack.build()["pgd"].norm == "L2"
    added = ["+attack.attacks.strong={attack: pgd, eps: 0.1}", "attack.attacks.strong.restarts=2"]
    assert compose_config(added).attack.build()["strong"].settings()["restarts"] == 2


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_stage_of_the_method_is_scheduled_without_a_plus(plus: str) -> None:
    config = compose_config(["method=admm", f"{plus}schedule.retrain.epochs=20", f"{plus}schedule.retrain.lr=3"])
    (retrain,) = [stage for stage in config.stages() if stage.name == "retrain"]
    assert (retrain.schedule.epochs, retrain.schedule.lr) == (20, 3 * config.training.lr_scale)
