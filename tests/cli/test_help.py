"""What --help says of every command: defaults, examples that work, and where the result goes."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from robcomp.cli.parser import main
from robcomp.settings.compose import compose_config
from robcomp.settings.override_paths import with_config_dir

pytestmark = pytest.mark.usefixtures("sandbox")

COMMANDS = (
    "train",
    "plan",
    "evaluate",
    "curve",
    "transfer",
    "combine",
    "sensitivity",
    "histogram",
    "losses",
    "compare",
    "list",
    "table",
)


@pytest.fixture
def helped(capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def ask(command: str) -> str:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        return capsys.readouterr().out

    return ask


def examples(text: str, command: str) -> list[list[str]]:
    """The words of the example lines, without the remark behind three blanks or more."""
    lines = re.findall(rf"^  robcomp {command} (.*)$", text, re.MULTILINE)
    return [shlex.split(re.split(r" {3,}", line)[0]) for line in lines]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_its_example_its_defaults_and_where_the_result_goes(
    command: str, helped: Callable[[str], str]
) -> None:
    text = helped(command)
    assert re.search(rf"examples?:\n  robcomp {command}\b", text)
    assert re.search(r"default|by itself|nothing is written", text)
    assert re.search(r"out=DIR|nothing is written", text)


def test_the_examples_of_train_compose(helped: Callable[[str], str], sandbox: Path) -> None:
    text = helped("train")
    (sandbox / "photos").mkdir()
    own = sandbox / "conf-of-mine"
    (own / "method").mkdir(parents=True)
    (own / "experiment").mkdir()
    (own / "method" / "mine.yaml").write_text("defaults: [al0, _self_]\n")
    experiment = re.search(r"for example:\n\n((?: {6}.*\n)+)", text)
    (own / "experiment" / "foo.yaml").write_text(re.sub(r"(?m)^ {6}", "", experiment[1]))
    lines = examples(text, "train")
    assert len(lines) > 10
    for words in lines:
        folder = words[words.index("--config-dir") + 1] if "--config-dir" in words else None
        overrides = [word for word in words if "=" in word and "," not in word and not word.startswith("jobs=")]
        config = compose_config(with_config_dir(overrides, folder))
        if "+experiment=foo" in words:
            assert (config.method.name, config.dataset.name, config.training.batch_size) == ("al0", "mnist", 256)


def test_an_option_is_no_abbreviation_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "-c", "job"])
    assert "unrecognized arguments: -c" in capsys.readouterr().err
