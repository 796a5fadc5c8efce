import pytest

from s3prl_interfaces.mini_superb import make_mini_superb
from tests.runner import toys


@pytest.fixture(autouse=True)
def toy_task(monkeypatch):
    """Put the toy task where S3PRL's own tasks are."""
    toys.put_in_place(monkeypatch)
    return toys


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """The folder of a small mini-SUPERB, where the mini configs look for it."""
    place = tmp_path_factory.mktemp("corpora")
    make_mini_superb(place / "mini_superb_data", scale=0.05)
    return place
