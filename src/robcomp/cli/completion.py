"""Tab completion: a script for the shell, and the answers that it asks for at every tab, without torch or Hydra."""

import re
from collections.abc import Iterable, Mapping, Sequence
from glob import escape
from itertools import pairwise
from pathlib import Path

from robcomp.cli.arguments import KEYS
from robcomp.errors import unknown
from robcomp.settings.choices import EXPERIMENT, GROUPS, choices

# Each script hands the line up to the cursor to `robcomp __complete` and offers the lines that come back. A candidate
# stands for the whole word under the cursor, and ends in a blank where nothing can follow it.
BASH = """\
_robcomp() {
    local line="${COMP_LINE:0:COMP_POINT}" word strip candidate
    word="${line##*[[:space:]]}"
    strip=""
    if [[ "$word" == *[=:]* ]]; then strip="${word%"${word##*[=:]}"}"; fi  # bash ends words at = and : too
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("${candidate#"$strip"}")
    done < <(robcomp __complete "$line" 2>/dev/null)
}
complete -o nospace -F _robcomp robcomp
"""
ZSH = """\
_robcomp() {
    local -a found
    found=("${(@f)$(robcomp __complete "$LBUFFER" 2>/dev/null)}")
    compadd -Q -S '' -- ${found:#}
}
compdef _robcomp robcomp
"""
FISH = """\
complete -c robcomp -f -a '(robcomp __complete (commandline -cp | string collect) | string trim --right)'
"""
SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
INSTALL = """add the line to the file that your shell reads when it starts, or type it for this session alone:
  bash   ~/.bashrc                     eval "$(robcomp completion bash)"
  zsh    ~/.zshrc, after compinit      eval "$(robcomp completion zsh)"
  fish   ~/.config/fish/config.fish    robcomp completion fish | source

A tab then completes commands, options, group choices (method=a), keys (method.ra), run directories (run=) and paths."""

DIRECTORIES = ("out", "runs", "data_dir", "dataset.path")
FILES = ("model.weights",)
RUNS = ("run", "source", "targets")
VALUES = {
    "threat.norm": ("Linf", "L2"),
    "device": ("auto", "cpu", "cuda"),
    "over": ("eps", "steps"),
    "normalised": ("true", "false"),
}
OPTION_VALUES = {
    "-c": ("job", "hydra", "all"),
    "--cfg": ("job", "hydra", "all"),
    "--scale": ("smoke", "cpu", "gpu", "paper"),
}
FOLDER_OPTIONS = ("-cd", "--config-dir")
# What is asked for again: these commands take a finished run's model and method as they are
OF_A_FINISHED_RUN = ("dataset", "attack", "threat", "seed", "device", "data_dir", "fresh")
OVERRIDING = ("train", "evaluate", "curve", "transfer", "combine", "sensitivity", "table")


def script(shell: str) -> str:
    """The script for a shell; UserError for one that there is none for."""
    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS)
    return SHELLS[shell]


def complete(line: str, helps: Mapping[str, str]) -> list[str]:
    """What the last word of `line` may become: whole words, with a blank behind where nothing can follow.

    `helps`: the text of each command's --help, which names its options; '' is robcomp's own.
    """
    words = _words(line)
    current, before = words[-1], words[1:-1]
    command = next((word for word in before if not word.startswith("-")), "")
    if before and before[-1] in OPTION_VALUES:
        return _matching(current, OPTION_VALUES[before[-1]])
    if before and before[-1] in FOLDER_OPTIONS:
        return _paths("", current, folders_only=True)
    if before and before[-1] in ("-p", "--package"):
        return [word.replace("=", " ") for word in _keys(current, before, None, stem=True)]
    if current.startswith("-"):
        return _matching(current, _options(helps.get(command, "")))
    if not command:
        return _matching(current, [name for name in helps if name])
    return _argument(command, current, before[before.index(command) + 1 :])


def _argument(command: str, current: str, before: Sequence[str]) -> list[str]:
    """The candidates for an argument of `command` after the words `before`."""
    positional = [word for word in before if not word.startswith("-") and "=" not in word]
    if command == "list":
        groups = (*GROUPS, "table", *([EXPERIMENT] if _folders(before) else []))
        return _matching(current, [f"{group}s" for group in groups])
    if command == "completion":
        return _matching(current, SHELLS)
    if command == "compare":
        return _runs("", current)
    if command == "table" and not positional and "=" not in current:
        return _matching(current, choices("table"))
    own = tuple(KEYS.get(command, {}))
    key, equals, value = current.partition("=")
    if equals:
        return _values(key, value, own, before)
    named = _matching(current, [f"{key}=" for key in own], end="")
    if command not in OVERRIDING:
        return named
    return named + [word for word in _keys(current, before, _sections(command, before)) if word not in named]


def _sections(command: str, before: Sequence[str]) -> tuple[str, ...] | None:
    """The parts of the configuration that matter to a command; None for all."""
    whole = command in ("train", "table") or (command == "evaluate" and any(w.startswith("model") for w in before))
    if command == "evaluate" and not before:
        return (*OF_A_FINISHED_RUN, "model")
    return None if whole else OF_A_FINISHED_RUN


def _keys(current: str, before: Sequence[str], sections: tuple[str, ...] | None, stem: bool = False) -> list[str]:
    """The keys that go on from `current`, one level at a time: method. and method= and method.ratio=."""
    from robcomp.settings.keys import tree

    plus = re.match(r"[+~]*", current)
    sign = plus[0] if plus else ""
    folders = _folders(before)
    parent, _, _ = current[len(sign) :].rpartition(".")
    node: object = tree(_chosen(before), folders)
    for part in filter(None, parent.split(".")):
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return []
    found = []
    for name, below in node.items():
        path = f"{parent}.{name}" if parent else name
        if sections and path.split(".")[0] not in sections:
            continue
        branch = isinstance(below, dict)
        if not branch or path in GROUPS or stem:
            found.append(f"{sign}{path}=")
        if branch and below:
            found.append(f"{sign}{path}.")
    if not parent and not stem and choices(EXPERIMENT, folders):
        found.append(f"+{EXPERIMENT}=")
    return _matching(current, found, end="")


def _values(key: str, value: str, own: Sequence[str], before: Sequence[str]) -> list[str]:
    """The candidates for KEY=VALUE; of a list (run=A,B or a sweep) its last element is completed."""
    name = key.lstrip("+~")
    head, comma, last = value.rpartition(",")
    start = f"{key}={head}{comma}"
    if name in RUNS and name in own:
        return _runs(start, last)
    if name in DIRECTORIES or name in FILES:
        return _paths(start, last, folders_only=name in DIRECTORIES)
    if name == "hydra.searchpath":
        opened = "" if comma else "["
        return _paths(f"{start}{opened}", last.removeprefix(opened), folders_only=True)
    folders = _folders(before)
    if name in (*GROUPS, EXPERIMENT):
        return _matching(f"{start}{last}", [f"{start}{choice}" for choice in choices(name, folders)])
    if name in VALUES:
        return _matching(f"{start}{last}", [f"{start}{choice}" for choice in VALUES[name]])
    from robcomp.settings.keys import tree

    node: object = tree(_chosen(before), folders)
    for part in name.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return _matching(f"{start}{last}", [f"{start}{choice}" for choice in ("true", "false")]) if node == "bool" else []


def _chosen(before: Sequence[str]) -> dict[str, str]:
    """The groups that the words choose."""
    pairs = (word.lstrip("+").partition("=") for word in before)
    return {key: value for key, _, value in pairs if key in (*GROUPS, EXPERIMENT)}


def _folders(before: Sequence[str]) -> list[Path]:
    """The user's own folders that the words name: --config-dir DIR, --config-dir=DIR, hydra.searchpath=[DIR,DIR]."""
    named = [after for word, after in pairwise(before) if word in FOLDER_OPTIONS]
    for word in before:
        key, equals, value = word.partition("=")
        if equals and key in FOLDER_OPTIONS:
            named.append(value)
        if key == "hydra.searchpath":
            named += value.strip("[]").split(",")
    paths = [Path(name.strip("'\" ").removeprefix("file://")).expanduser() for name in named]
    return [path for path in paths if path.is_dir()]


def _options(text: str) -> list[str]:
    """The options that a --help names."""
    lines = re.findall(r"(?m)^  (-.*?)(?:  .*)?$", text)
    return [option for line in lines for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", line)]


def _runs(start: str, typed: str) -> list[str]:
    """Run directories whose path begins as typed, by default under outputs/; where there are none, folders."""
    head, slash, tail = (typed or "outputs/").rpartition("/")
    folder = Path(f"{head}{slash}" or ".").expanduser()
    found = [
        report.parent.relative_to(folder).as_posix()
        for depth in ("", "*/", "*/*/")
        for report in folder.glob(f"{escape(tail)}*/{depth}report.json")
    ]
    return [f"{start}{head}{slash}{run}" for run in sorted(found)] or _paths(start, typed, folders_only=True)


def _paths(start: str, typed: str, folders_only: bool) -> list[str]:
    """The entries of the folder that `typed` names, as far as they begin as it ends; a folder ends in a slash."""
    head, slash, tail = typed.rpartition("/")
    folder = Path(f"{head}{slash}" or ".").expanduser()
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    visible = [e for e in entries if e.name.startswith(tail) and (tail.startswith(".") or not e.name.startswith("."))]
    return [
        f"{start}{head}{slash}{entry.name}{'/' if entry.is_dir() else ' '}"
        for entry in visible
        if entry.is_dir() or not folders_only
    ]


def _matching(current: str, candidates: Iterable[str], end: str = " ") -> list[str]:
    return [f"{candidate}{end}" for candidate in candidates if candidate.startswith(current)]


def _words(line: str) -> list[str]:
    """The words of a line as the shell would split them, the last one as far as it is typed ('' after a blank)."""
    words, quote = [""], ""
    for letter in line:
        if quote:
            quote = "" if letter == quote else quote
            words[-1] += "" if not quote else letter
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            words += [""] if words[-1] else []
        else:
            words[-1] += letter
    return words
