"""log.jsonl, a line of JSON for each thing that happened in a run: stages, epochs, evaluations."""

import json
from pathlib import Path
from typing import Any

from robcomp.errors import UserError

Event = dict[str, Any]  # its keys depend on its kind, and newer versions of robcomp may write more


def append(log: Path, event: Event) -> None:
    """Write one event, whose kind is its key "event", at the end of `log`."""
    with log.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(event) + "\n")


def epochs(log: Path) -> list[Event]:
    """The epoch events of a log in order; of an epoch that a resumed run repeated, the later event.

    Lines that are not JSON are passed over: a run that was killed may have left half a line.
    """
    if not log.is_file():
        raise UserError(f"no log at {log}; give the log.jsonl of a run directory.")
    events: dict[tuple[str, int], Event] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if event.get("event") == "epoch":
            events[event["stage"], event["epoch"]] = event
    return list(events.values())
