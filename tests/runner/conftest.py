import pytest

from tests.runner import toys


@pytest.fixture(autouse=True)
def toy_task(monkeypatch):
    """Put the toy task where S3PRL's own tasks are."""
    toys.put_in_place(monkeypatch)
    return toys
