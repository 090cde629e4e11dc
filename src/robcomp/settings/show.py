"""The composed configuration as YAML, as `--cfg` prints it."""

from collections.abc import Sequence

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robcomp.errors import UserError, unknown
from robcomp.settings.compose import compose_all
from robcomp.settings.hydra_errors import as_user_error

HYDRA_NODE = "# of hydra: robcomp uses searchpath and runtime.choices alone; where runs go is said by out=DIR\n"


def shown(overrides: Sequence[str], part: str = "job", resolve: bool = False, package: str | None = None) -> str:
    """The configuration as a YAML document.

    `part`: the run's own (job), Hydra's own node (hydra), or both (all). With `resolve` every ${...} is replaced by
    what it stands for. `package` names the one node to show, as in schedule.dense; UserError where there is none.
    """
    node = compose_all(overrides)
    if part != "all":
        node = OmegaConf.masked_copy(node, [key for key in map(str, node) if (key == "hydra") == (part == "hydra")])
    try:
        if resolve:
            OmegaConf.resolve(node)
    except OmegaConfBaseException as error:
        known = as_user_error(error, overrides, lambda parent: [])
        raise UserError(f"{str(known).rstrip('.')}, so --resolve cannot show it; leave it out.") from None
    said = "" if part == "job" else HYDRA_NODE
    if package in (None, "", "_global_"):
        return f"{said}{OmegaConf.to_yaml(node)}"
    return f"{said}# @package {package}\n{OmegaConf.to_yaml(_selected(node, str(package)))}"


def _selected(node: DictConfig, package: str) -> Container:
    """The node at `package`; of a single value the node above it with this one key."""
    above, _, key = package.rpartition(".")
    try:
        parent = OmegaConf.select(node, above) if above else node
    except OmegaConfBaseException:
        parent = None
    if not isinstance(parent, DictConfig):
        raise UserError(f"--package {package}: there is no node {above}; robcomp train --cfg job shows all.")
    if key not in parent:
        error = unknown(f"key of {above or 'the configuration'}", key, map(str, parent))
        raise UserError(f"--package {package}: {error}")
    if not OmegaConf.is_interpolation(parent, key) and isinstance(parent[key], Container):
        return parent[key]
    return OmegaConf.masked_copy(parent, [key])
