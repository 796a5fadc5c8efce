import itertools
import sys

import pytest
import torch

from s3prl_interfaces.interfaces import registry


@pytest.fixture(scope="session")
def make_states():
    """Return a function that makes L random hidden states (B, T, D), always the same ones."""

    def make(num_layers, feature_dim, batch=3, frames=7, dtype=torch.float32, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (num_layers, batch, frames, feature_dim)
        return list(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).unbind(0))

    return make


@pytest.fixture(scope="module")
def install_plugin(tmp_path_factory):
    """Return a function that lays a distribution with interfaces on the path, as pip would."""
    path, modules, specs = list(sys.path), set(sys.modules), dict(registry._SPECS)
    numbers = itertools.count()

    def install(module, source, **entry_points):
        folder = tmp_path_factory.mktemp("site")
        (folder / f"{module}.py").write_text(source)
        info = folder / f"{module}_dist-1.{next(numbers)}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}-dist\nVersion: 1.0\n")
        lines = [f"{name} = {target}" for name, target in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[s3prl_interfaces.interfaces]", *lines]))
        sys.path.insert(0, str(folder))

    yield install
    sys.path[:] = path
    registry._SPECS.clear()
    registry._SPECS.update(specs)
    for name in set(sys.modules) - modules:
        if name.startswith("plugin_"):
            del sys.modules[name]
