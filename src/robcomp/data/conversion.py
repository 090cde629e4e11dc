"""From a source or a folder of images to the file that training reads, once, whoever asks first."""

from collections.abc import Callable
from pathlib import Path

from robcomp.data import folder, store
from robcomp.data.config import DatasetConfig
from robcomp.data.sources import SOURCES
from robcomp.errors import UserError, unknown
from robcomp.storage import digest, locked


def location(cfg: DatasetConfig, data_dir: Path) -> Path:
    """Where the data of `cfg` are kept: <name>.safetensors, with a digest in it for a folder's, whatever its name."""
    if not cfg.path:
        return data_dir / f"{cfg.name}.safetensors"
    return data_dir / f"{cfg.name}-{digest([cfg.path, list(cfg.shape), cfg.test_fraction], 8)}.safetensors"


def convert(name: str, data_dir: Path) -> Path:
    """The path <data_dir>/<name>.safetensors, made from the source `name` if it is not there yet.

    Original files are looked for, and downloaded, under data_dir/raw. A lock makes a second process wait for the
    first instead of converting too. A file that is there is used whether or not a source of that name exists.
    Raises UserError for an unknown name, data that are missing or damaged, and a folder that cannot be written.
    """
    path = data_dir / f"{name}.safetensors"
    if not path.exists():
        if name not in SOURCES:
            raise UserError(f"{unknown('dataset', name, SOURCES)} There is no {path} either.")
        source = SOURCES[name]
        _make(path, name, path.exists, lambda: store.write(path, source(data_dir / "raw")))
    return path


def convert_folder(cfg: DatasetConfig, data_dir: Path) -> Path:
    """The file of the images under cfg.path, made if it is not there yet or shows another state of that folder.

    Where the folder is gone, the file alone will do: a finished run can be evaluated without it. Raises UserError for
    what is wrong with the folder or its images (see `robcomp.data.folder`), and for a data_dir that cannot be written.
    """
    path, root = location(cfg, data_dir), Path(cfg.path or "")
    if path.exists() and not root.exists():
        return path
    listing = folder.scan(root)

    def up_to_date() -> bool:
        return path.exists() and store.read(path).stamp == listing.stamp

    def make() -> None:
        store.write(path, folder.read(listing, cfg.shape, cfg.test_fraction), listing.stamp)

    if not up_to_date():
        _make(path, cfg.name, up_to_date, make)
    return path


def _make(path: Path, name: str, made: Callable[[], bool], make: Callable[[], None]) -> None:
    """Call `make` under the lock of `path`, unless someone else has `made` it meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent / f".{path.stem}.lock", f"preparing the data set {name}"):
            if not made():
                make()
    except OSError as error:
        raise UserError(
            f"dataset '{name}' cannot be written to {path.parent}: {error.strerror or error}; "
            "set data_dir (or ROBCOMP_DATA_DIR) to a folder with room that you may write."
        ) from error
