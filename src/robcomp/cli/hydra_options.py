"""Options of Hydra's that robcomp does not have, and overrides written as options: what to type in their place."""

from collections.abc import Sequence

from robcomp.errors import UserError
from robcomp.settings.choices import GROUPS

OWN_FILES = "write DIR/experiment/NAME.yaml, and give --config-dir DIR +experiment=NAME."
INSTEAD = {
    ("-cn", "--config-name"): f"robcomp always starts from its own config.yaml: {OWN_FILES}",
    ("-cp", "--config-path"): f"robcomp's own files always count, and yours are added to them: {OWN_FILES}",
    ("-r", "--run"): "robcomp train runs without it; leave it out.",
    (
        "-i",
        "--info",
    ): "robcomp train --cfg job shows the configuration, --cfg hydra --package hydra.runtime the "
    "folders and choices that it is made of.",
    ("-sc", "--shell-completion"): 'robcomp completion bash prints the script: eval "$(robcomp completion bash)".',
    ("--hydra-help",): "robcomp train --help says which of Hydra's options there are.",
    ("--experimental-rerun",): "give the same overrides again: run.overrides in the run's report.json lists them; "
    "fresh=true trains anew.",
}


def refuse(words: Sequence[str]) -> None:
    """A UserError for an option of Hydra's that robcomp does not have, with what there is in its place."""
    for word in words:
        for options, way in INSTEAD.items():
            if word.partition("=")[0] in options:
                raise UserError(f"{word} is an option of Hydra's; {way}")


def refuse_dashes(unread: str, words: Sequence[str]) -> None:
    """A UserError where the `unread` one of the `words` is an override written as an option: --method al0."""
    key, equals, value = unread.lstrip("-").partition("=")
    if unread.startswith("--") and (equals or key.split(".")[0] in GROUPS):
        after = words[words.index(unread) + 1 :][:1]
        value = value or next((word for word in after if "=" not in word and not word.startswith("-")), "VALUE")
        raise UserError(f"{unread}: what is set by KEY=VALUE takes no dashes; write {key}={value}.")
