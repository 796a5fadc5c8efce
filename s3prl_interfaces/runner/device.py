"""The device that ``--device`` names."""

import torch

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.runner import distributed


def choose_device(name: str) -> torch.device:
    """Give ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Where torchrun started several processes, ``auto`` and ``cuda`` are a GPU for each.

    Raises:
        ConfigError: It is something else, or there is no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"`--device {name}` is not a device: use auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"`--device {name}` is not supported: use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and device.index is None and distributed.world_size() > 1:
        device = torch.device("cuda", distributed.local_place())
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(
            f"`--device {name}`: PyTorch sees {count} CUDA devices here; use `--device auto` or `cpu`, and as many "
            "processes as there are devices."
        )
    return device
