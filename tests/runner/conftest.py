import sys
import types

import pytest

from s3prl_interfaces.s3prl_compat import prepare


@pytest.fixture(autouse=True)
def toy_task(monkeypatch):
    """Put the toy task where S3PRL's own tasks are."""
    prepare()
    from tests.runner import toys

    package = types.ModuleType(f"s3prl.downstream.{toys.TASK}")
    package.__path__ = []
    package.__spec__ = types.SimpleNamespace()  # find_spec asks for it
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, f"{package.__name__}.expert", toys)
    return toys
