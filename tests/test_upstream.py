"""Upstreams by name: S3PRL's hub, the user's own files and modules, the Hugging Face Hub."""

import logging
import sys

import pytest
import torch

from s3prl_interfaces.errors import UpstreamError
from s3prl_interfaces.s3prl_compat import import_s3prl
from s3prl_interfaces.upstream import list_upstreams, load_upstream

UPSTREAM = """
import torch
from layers import WIDTH  # a neighbour of this file

class Upstream(torch.nn.Module):
    def __init__(self, ckpt=None, model_config=None, refresh=False, **kwargs):
        super().__init__()
        self.got = ckpt, model_config, refresh
        self.linear = torch.nn.Linear(1, WIDTH)
        self.dropout = torch.nn.Dropout(0.5)

    def get_downsample_rates(self, key):
        return 160

    def forward(self, wavs):
        x = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)[:, ::160, None]
        return {"hidden_states": [self.dropout(self.linear(x))] * 2}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(UPSTREAM)
    (tmp_path / "layers.py").write_text("WIDTH = 6")
    monkeypatch.delitem(sys.modules, "layers", raising=False)
    yield tmp_path
    sys.modules.pop("layers", None)


def test_list_holds_the_entries_only():
    names = list_upstreams()
    assert names == sorted(names)
    assert {"hubert", "wavlm_large", "fbank", "hubert_local", "hf_hubert_custom", "xlsr_53"} <= set(names)
    # what S3PRL's files import beside their entries
    assert not {"Path", "FileLock", "options", "os", "load_and_convert_fairseq_ckpt"} & set(names)
    assert not [name for name in names if name.startswith("_")]


def test_entry_of_the_users_own_in_the_hub(monkeypatch):
    def my_entry(**options):
        raise LookupError(sorted(options))

    monkeypatch.setattr(import_s3prl("s3prl.hub"), "my_entry", my_entry, raising=False)
    assert "my_entry" in list_upstreams()
    with pytest.raises(UpstreamError, match=r"'my_entry'.*\['ckpt', 'model_config', 'refresh'\]"):
        load_upstream("my_entry")


@pytest.mark.parametrize("name", ["hubrt", "_hubert", "Path", "options", "os"])
def test_unknown_name(name):
    with pytest.raises(UpstreamError, match=r"Unknown upstream.*`s3prl-interfaces list upstreams`") as caught:
        load_upstream(name)
    assert len(str(caught.value)) < 300
    if name == "hubrt":
        assert "'hubert'" in str(caught.value)


def test_unknown_hub():
    with pytest.raises(UpstreamError, match=r"Unknown hub 'hugingface'.*'huggingface'"):
        load_upstream("fbank", hub="hugingface")


def test_file_of_the_users_own(folder):
    path, state = list(sys.path), torch.random.get_rng_state()
    torch.manual_seed(3)
    upstream = load_upstream(f"{folder}/mine.py:Upstream", ckpt="c", model_config="m", refresh=True)
    assert upstream.got == ("c", "m", True)
    assert upstream.training
    assert sys.path == path
    assert upstream([torch.zeros(1600), torch.zeros(800)])["hidden_states"][0].shape == (2, 10, 6)
    # trying it out draws no random numbers: only its weights do
    torch.manual_seed(3)
    load_upstream(f"{folder}/mine.py:Upstream")
    after = torch.rand(1)
    torch.manual_seed(3)
    torch.nn.Linear(1, 6)
    assert torch.equal(after, torch.rand(1))
    torch.random.set_rng_state(state)


def test_module_of_the_users_own(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    (folder / "my_package").mkdir()
    (folder / "my_package" / "ups.py").write_text(UPSTREAM)
    upstream = load_upstream("my_package.ups:Upstream", ckpt="c")
    assert type(upstream) is sys.modules["my_package.ups"].Upstream
    with pytest.raises(UpstreamError, match=r"my_package\.nothing.*PYTHONPATH"):
        load_upstream("my_package.nothing:Upstream")


def variant(folder, old, new):
    assert old in UPSTREAM
    (folder / "other.py").write_text(UPSTREAM.replace(old, new))
    return f"{folder}/other.py:Upstream"


def test_factory_problems_are_named(folder):
    with pytest.raises(UpstreamError, match=r"no file .*nowhere\.py"):
        load_upstream(f"{folder}/nowhere.py:Upstream")
    for incomplete in ("mine.py", "mine.py:"):
        with pytest.raises(UpstreamError, match=r"FILE\.py:FACTORY"):
            load_upstream(f"{folder}/{incomplete}")
    with pytest.raises(UpstreamError, match=r"mine\.py has no callable 'Upsteam'.*Did you mean 'Upstream'"):
        load_upstream(f"{folder}/mine.py:Upsteam")
    with pytest.raises(UpstreamError, match=r"other\.py.*ModuleNotFoundError.*no_such_layers"):
        load_upstream(variant(folder, "from layers", "from no_such_layers"))
    with pytest.raises(UpstreamError, match=r"other\.py.*SyntaxError"):
        load_upstream(variant(folder, "import torch", "import"))
    with pytest.raises(UpstreamError, match=r"other\.py.*unexpected keyword.*\*\*kwargs"):
        load_upstream(variant(folder, ", refresh=False, **kwargs", ""))


def test_what_is_not_an_upstream_is_named(folder):
    (folder / "other.py").write_text("def make(**kwargs): return {}")
    with pytest.raises(UpstreamError, match=r"other\.py:make.*returned a dict, not a torch\.nn\.Module"):
        load_upstream(f"{folder}/other.py:make")
    with pytest.raises(UpstreamError, match=r"other\.py.*no get_downsample_rates"):
        load_upstream(variant(folder, "def get_downsample_rates", "def downsample_rates"))
    with pytest.raises(UpstreamError, match=r"other\.py.*hidden_states; it returned the keys \['states'\]"):
        load_upstream(variant(folder, '"hidden_states"', '"states"'))
    with pytest.raises(UpstreamError, match=r"other\.py.*hidden_states; it returned a list"):
        load_upstream(variant(folder, 'return {"hidden_states": [self.dropout(self.linear(x))] * 2}', "return [x]"))
    with pytest.raises(UpstreamError, match=r"\(batch, time, width\); one is \(1, 6\)"):
        load_upstream(variant(folder, "self.linear(x)", "self.linear(x).mean(1)"))
    with pytest.raises(UpstreamError, match=r"a second of sound.*RuntimeError"):
        load_upstream(variant(folder, "[:, ::160, None]", ""))


@pytest.fixture
def repository(folder, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    (folder / "expert.py").write_text(UPSTREAM.replace("class Upstream", "class UpstreamExpert"))
    (folder / "model.pt").write_bytes(b"")
    asked = []

    def snapshot_download(name, *, revision=None):
        asked.append((name, revision))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return folder, asked


def test_huggingface(repository, caplog):
    folder, asked = repository
    with caplog.at_level(logging.WARNING):
        upstream = load_upstream("owner/name", hub="huggingface", revision="abc", model_config="m")
    assert asked == [("owner/name", "abc")]
    assert upstream.got == (str(folder / "model.pt"), "m", False)
    assert "running the code that was downloaded" in caplog.text
    assert str(folder / "expert.py") in caplog.text


def test_huggingface_problems_are_named(repository, monkeypatch):
    folder, _ = repository
    with pytest.raises(UpstreamError, match=r"owner/name.*no file best\.pt.*--upstream_model_name"):
        load_upstream("owner/name", hub="huggingface", model_name="best.pt")
    with pytest.raises(UpstreamError, match="-k does not go with --hub huggingface"):
        load_upstream("owner/name", hub="huggingface", ckpt="a.pt")
    (folder / "expert.py").write_text("import a_requirement")
    with pytest.raises(UpstreamError, match=r"owner/name.*a_requirement.*requirements\.txt"):
        load_upstream("owner/name", hub="huggingface")
    (folder / "expert.py").unlink()
    with pytest.raises(UpstreamError, match=r"owner/name.*no file expert\.py"):
        load_upstream("owner/name", hub="huggingface")

    def offline(name, *, revision=None):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UpstreamError, match=r"owner/name.*no route.*connection"):
        load_upstream("owner/name", hub="huggingface")
