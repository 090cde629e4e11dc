"""Overrides in Hydra's grammar, read word by word, and of a word that cannot be read what is wrong with it."""

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from robcomp.errors import UserError

# What word processors put in the place of a sign of the keyboard: dashes, quotes, full-width signs, narrow blanks
LOOKS_LIKE = {
    **dict.fromkeys("\u2010\u2012\u2013\u2014\u2212", "-"),
    **dict.fromkeys("\u201c\u201d\u201e", '"'),
    **dict.fromkeys("\u2018\u2019", "'"),
    "\uff1d": "=",
    "\uff0c": ",",
    **dict.fromkeys("\u00a0\u2009\u202f", " "),
}
CLOSES = {"[": "]", "{": "}", "(": ")"}
FUNCTIONS = "choice, range, glob, shuffle, sort, int, float, str, bool, json_str"


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides one by one; a UserError that names the first word that Hydra's grammar does not hold."""
    parser = OverridesParser.create()
    parsed = []
    for number, word in enumerate(overrides):
        try:
            override = parser.parse_override(word)
        except HydraException as error:
            fault = _fault(word, overrides[number + 1 :], str(error)).rstrip(".")
            raise UserError(f"cannot read '{word}': {fault}.") from None
        if not override.key_or_group:
            raise UserError(f"cannot read '{word}': {_no_key(word)}.")
        parsed.append(override)
    return parsed


def quoted(key: str, text: str) -> str:
    """The override key=text, whatever characters the text has."""
    return f"{key}={_quoted(text)}"


def quoted_list(key: str, texts: Sequence[str]) -> str:
    """The override key=[text, ...], whatever characters the texts have."""
    return f"{key}=[{','.join(map(_quoted, texts))}]"


def line(override: Override) -> str:
    """The override as it was typed."""
    return str(override.input_line)


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _fault(word: str, rest: Sequence[str], said: str) -> str:
    """What is wrong with a word and what to write; `rest`: the words after it; `said`: the parser's message."""
    key, equals, value = word.partition("=")
    if strange := [letter for letter in word if letter in LOOKS_LIKE]:
        like = LOOKS_LIKE[strange[0]]
        name = {" ": "a blank", "-": "a minus"}.get(like, like)
        return f"'{strange[0]}' (U+{ord(strange[0]):04X}) only looks like {name}; write {_plain(word)}"
    if word.startswith("-"):
        return f"an override has no dashes; write {word.lstrip('-')}"
    if not equals:
        return _no_value(word, rest)
    if value.startswith("="):
        return f"'=' stands twice; write {key}={value.lstrip('=')}"
    if not key:
        return _no_key(word)
    if letters := re.sub(r"[\w.@/:$+~-]", "", key):
        return f"the key '{key}' holds '{letters[0]}'; write KEY=VALUE, as in method.ratio=0.01."
    if opened := _open(value):
        return opened
    if re.search(r"\s[\w.@/+~]+=", value) and not set("'\"{") & set(value):
        return f"two overrides in one word; write {' '.join(word.split())}, with a blank between them outside quotes."
    if "=" in value and not set("'\"{") & set(value):
        return f"'=' stands twice; what holds one needs quotes inside quotes: {_in_quotes(key, value)}"
    if re.search(r"(^|[,\[(])\s*,|,\s*($|[\])])", value):
        more = f"{word}{rest[0]}" if rest and value.endswith(",") and "=" not in rest[0] else f"{key}=A,B"
        return f"there is nothing on one side of a comma; write {more}, without blanks."
    if function := re.search(r"Unknown function '(\w+)'", said):
        return f"there is no function {function[1]}(); Hydra's are {FUNCTIONS}. As text: {_in_quotes(key, value)}"
    if "while evaluating" in said:
        cause = " ".join(said.split(": ", 1)[1].split()).rstrip(".")
        return f"{cause}; write {key}=A,B or {key}=range(1,4)."
    return f"what is not plain letters and digits needs quotes inside quotes: {_in_quotes(key, value)}"


def _no_value(word: str, rest: Sequence[str]) -> str:
    if rest and rest[0].startswith("="):
        value = rest[0].lstrip("=") or next(iter(rest[1:]), "VALUE")
        return f"blanks stand around '='; write {word}={value}"
    if ":" in word:
        return f"it has no '='; write {word.replace(':', '=', 1)}"
    if rest and "=" not in rest[0]:
        return f"it has no '='; write {word}={rest[0]}"
    return "it has no '='; write KEY=VALUE, as in method=al0 or method.ratio=0.01."


def _no_key(word: str) -> str:
    return f"there is no key before '='; write KEY=VALUE, as in method.ratio={word.lstrip('+~=') or '0.01'}"


def _open(value: str) -> str:
    """What a value opens and does not close, or closes without having opened it; '' for neither."""
    quote, start, stack = "", 0, []
    for place, letter in enumerate(value):
        if quote:
            quote = "" if letter == quote and value[place - 1] != "\\" else quote
        elif letter in "'\"":
            quote, start = letter, place
        elif letter in CLOSES:
            stack.append(letter)
        elif letter in CLOSES.values():
            if not stack or CLOSES[stack[-1]] != letter:
                return f"nothing opens the '{letter}' at its end; write KEY=VALUE, as in dataset.shape=[1,28,28]."
            stack.pop()
    if quote:
        return f"the quote in front of '{value[start + 1 :]}' is not closed; write {quote} at both ends."
    if stack:
        return (
            f"'{stack[-1]}' is not closed; write '{CLOSES[stack[-1]]}' at the end, and quotes round the whole word "
            "where it holds blanks or parentheses, as in 'KEY=[1, 2]'."
        )
    return ""


def _in_quotes(key: str, value: str) -> str:
    inner = '"' if "'" in value else "'"
    outer = "'" if inner == '"' else '"'
    return f"{outer}{key}={inner}{value.strip(inner)}{inner}{outer}"


def _plain(word: str) -> str:
    return "".join(LOOKS_LIKE.get(letter, letter) for letter in word)
