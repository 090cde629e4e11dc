"""From a source to the file that training reads, once, whoever asks first."""

from pathlib import Path

from filelock import FileLock

from robcomp.data import store
from robcomp.data.sources import SOURCES
from robcomp.errors import UserError


def convert(name: str, data_dir: Path) -> Path:
    """The path <data_dir>/<name>.safetensors, made from the source `name` if it is not there yet.

    Original files are looked for, and downloaded, under data_dir/raw. A lock makes a second process wait for the
    first instead of converting too. A file that is there is used whether or not a source of that name exists.
    Raises UserError for an unknown name, data that are missing or damaged, and a folder that cannot be written.
    """
    path = data_dir / f"{name}.safetensors"
    if path.exists():
        return path
    source = SOURCES[name]
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f".{name}.lock"):
            if not path.exists():
                store.write(path, source(data_dir / "raw"))
    except OSError as error:
        raise UserError(
            f"dataset '{name}' cannot be written to {data_dir}: {error.strerror or error}; "
            "set data_dir (or ROBCOMP_DATA_DIR) to a folder with room that you may write."
        ) from error
    return path
