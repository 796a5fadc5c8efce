"""Hidden states on disk: what is read is what was computed, by this upstream, of this utterance."""

import logging
import multiprocessing
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.testing import assert_close

from downstream_tasks.audio import RandomPiece, random_piece
from s3prl_interfaces.errors import UpstreamError
from s3prl_interfaces.feature_cache import CachedUpstream, Store, fingerprint, store
from s3prl_interfaces.runner.batches import to_device
from s3prl_interfaces.upstream import load_upstream


class Frames(nn.Module):
    """Two layers of width 3 from blocks of 10 samples; what is beside an utterance changes it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0)))
        self.passes = []

    def get_downsample_rates(self, key):
        return 10

    def forward(self, wavs):
        self.passes.append([len(wav) for wav in wavs])
        padded = nn.utils.rnn.pad_sequence(list(wavs), batch_first=True)
        blocks = padded[:, : padded.size(1) // 10 * 10].unflatten(1, (-1, 10))
        return {"hidden_states": [blocks @ weight.T + 0.1 * len(wavs) for weight in self.weight]}


def wav_of(samples, seed=0):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def cached(folder, layer=None, dtype=torch.float32, upstream=None, max_bytes=None):
    upstream = upstream or Frames()
    return CachedUpstream(upstream, "hidden_states", layer, dtype, Store(folder, folder, max_bytes))


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def test_an_utterance_is_computed_once_and_alone(tmp_path):
    model, plain = cached(tmp_path), Frames()
    short, long = wav_of(35), wav_of(72, seed=1)
    states = model([short, long])["hidden_states"]
    assert [state.shape for state in states] == [(2, 7, 3)] * 2
    for layer in range(2):
        torch.testing.assert_close(states[layer][0, :3], plain([short])["hidden_states"][layer][0], rtol=0, atol=0)
        torch.testing.assert_close(states[layer][1], plain([long])["hidden_states"][layer][0], rtol=0, atol=0)
        assert not states[layer][0, 3:].any()
    again = model([long, short, long.clone()])["hidden_states"]
    assert_close(again[1][1], states[1][0], rtol=0, atol=0)
    assert_close(again[1][2], states[1][1], rtol=0, atol=0)
    assert model.upstream.passes == [[35], [72]]
    changed = long.clone()
    changed[70] += 1e-6
    model([changed])
    assert model.upstream.passes == [[35], [72], [72]]
    assert not states[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_later_is_what_was_given_first(tmp_path, dtype):
    first = cached(tmp_path, dtype=dtype)
    wavs = [wav_of(35), wav_of(72, seed=1)]
    given = first(wavs)["hidden_states"]
    assert not shards(tmp_path)
    first.store.flush()
    assert len(shards(tmp_path)) == 1
    later = cached(tmp_path, dtype=dtype)
    read = later(wavs)["hidden_states"]
    assert later.upstream.passes == []
    assert {state.dtype for state in read} == {torch.float32}
    assert_close(read, given, rtol=0, atol=0)
    exact = Frames()([wavs[1]])["hidden_states"]
    assert torch.equal(read[0][1], exact[0][0].to(dtype).float())
    with safe_open(shards(tmp_path)[0], framework="pt") as shard:
        assert {shard.get_tensor(key).dtype for key in shard.keys()} == {dtype}  # noqa: SIM118 (no mapping)


def test_autocast_changes_nothing(tmp_path):
    with torch.autocast("cpu", torch.bfloat16):
        given = cached(tmp_path)([wav_of(35)])["hidden_states"]
    assert_close(given, Frames()([wav_of(35)])["hidden_states"], rtol=0, atol=0)


def test_one_layer(tmp_path):
    model = cached(tmp_path, layer=-1)
    (state,) = model([wav_of(35)])["hidden_states"]
    assert_close(state, Frames()([wav_of(35)])["hidden_states"][-1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["tensor", "mapping", "tuple"])
def test_whatever_holds_the_states(tmp_path, kind):
    class Other(Frames):
        def forward(self, wavs):
            states = super().forward(wavs)["hidden_states"]
            holders = {"tensor": states[0], "mapping": {"a": states[0], "b": states[1]}, "tuple": tuple(states)}
            return {"hidden_states": holders[kind]}

    states = cached(tmp_path, upstream=Other())([wav_of(35)])["hidden_states"]
    assert_close(states, Frames()([wav_of(35)])["hidden_states"][: len(states)], rtol=0, atol=0)
    assert len(states) == (1 if kind == "tensor" else 2)


def test_too_large_for_the_dtype(tmp_path):
    with pytest.raises(UpstreamError, match=r"not finite in torch\.float16: take bfloat16"):
        cached(tmp_path, dtype=torch.float16)([1e5 * wav_of(35)])
    assert_close(
        cached(tmp_path, dtype=torch.bfloat16)([1e5 * wav_of(35)])["hidden_states"],
        Frames()([1e5 * wav_of(35)])["hidden_states"],
        rtol=1e-2,
        atol=1,
    )


def test_pieces_drawn_at_random_are_not_stored(tmp_path):
    model = cached(tmp_path)
    wav = np.arange(100, dtype=np.float32)
    piece, whole = random_piece(wav, 60), random_piece(wav, 100)
    assert isinstance(piece, RandomPiece)
    assert not isinstance(whole, RandomPiece)
    for _ in range(2):
        model(to_device([piece, whole], torch.device("cpu")))
    assert model.upstream.passes == [[60], [100], [60]]


def test_a_shard_is_written_when_there_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 2 * 3 * 2 * 3 * 4)  # two utterances
    model = cached(tmp_path)
    for seed in range(5):
        model([wav_of(35, seed)])
    assert len(shards(tmp_path)) == 2
    model.store.flush()
    model.store.flush()
    assert len(shards(tmp_path)) == 3
    assert shards(tmp_path) == sorted(tmp_path.iterdir())


def test_two_processes_see_each_other(tmp_path):
    one, other = cached(tmp_path), cached(tmp_path)
    one([wav_of(35)])
    one.store.flush()
    other([wav_of(35)])
    assert other.upstream.passes == []
    one([wav_of(42)])
    other([wav_of(42)])
    one.store.flush()
    other.store.flush()
    third = cached(tmp_path)
    third([wav_of(35), wav_of(42)])
    assert third.upstream.passes == []


def work(folder, seeds):
    model = cached(folder)
    for seed in seeds:
        model([wav_of(200 + seed, seed)])
        model.store.flush()


def test_many_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(tmp_path, range(start, start + 20))) for start in (0, 10, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    later = cached(tmp_path)
    for seed in range(40):
        given = later([wav_of(200 + seed, seed)])["hidden_states"]
        assert_close(given, Frames()([wav_of(200 + seed, seed)])["hidden_states"], rtol=0, atol=0)
    assert later.upstream.passes == []


def test_who_is_killed_while_writing_leaves_nothing_that_is_read(tmp_path, monkeypatch):
    def killed(tensors, path):
        path.write_bytes(b"half a shard")
        raise KeyboardInterrupt

    model = cached(tmp_path)
    model([wav_of(35)])
    monkeypatch.setattr(store, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        model.store.flush()
    later = cached(tmp_path)
    later([wav_of(35)])
    assert later.upstream.passes == [[35]]
    assert not shards(tmp_path)


@pytest.mark.parametrize("damage", [lambda content: content[:40], lambda content: b"", lambda content: b"\xff" * 99])
def test_a_damaged_shard_is_left_out(tmp_path, caplog, damage):
    model = cached(tmp_path)
    model([wav_of(35)])
    model.store.flush()
    (shard,) = shards(tmp_path)
    shard.write_bytes(damage(shard.read_bytes()))
    later = cached(tmp_path)
    assert_close(later([wav_of(35)]), Frames()([wav_of(35)]), rtol=0, atol=0)
    assert later.upstream.passes == [[35]]
    assert f"{shard} cannot be read and is left out" in caplog.text
    later.store.flush()
    last = cached(tmp_path)
    last([wav_of(35)])
    assert last.upstream.passes == []


def test_a_shard_that_was_deleted_is_computed_again(tmp_path):
    model = cached(tmp_path)
    model([wav_of(35)])
    model.store.flush()
    shards(tmp_path)[0].unlink()
    model([wav_of(35)])
    assert model.upstream.passes == [[35], [35]]


def test_max_bytes(tmp_path, caplog):
    """Of all files under the root; what does not fit is computed."""
    root = tmp_path / "root"
    (root / "other").mkdir(parents=True)
    (root / "other" / "file").write_bytes(bytes(700))
    model = CachedUpstream(Frames(), "hidden_states", None, torch.float32, Store(root / "mine", root, 1000))
    model([wav_of(35)])
    model.store.flush()
    used = 700 + shards(root / "mine")[0].stat().st_size
    assert used < 1000
    model.store.max_bytes = used + 71  # the states of three frames are 72
    model([wav_of(35, 1)])
    model.store.flush()
    assert model.store.full
    assert f"larger than max_bytes, {used + 71}, together" in caplog.text
    assert len(shards(root / "mine")) == 1
    for seed in (0, 1, 2):
        model([wav_of(35, seed)])
    model.store.flush()
    assert model.upstream.passes == [[35]] * 4
    assert caplog.text.count("No more hidden states") == 1
    assert len(shards(root / "mine")) == 1


def test_a_disk_that_is_full(tmp_path, monkeypatch, caplog):
    def full(tensors, path):
        path.write_bytes(b"half a shard")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_file", full)
    model = cached(tmp_path)
    model([wav_of(35)])
    model.store.flush()
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []
    assert len(model([wav_of(35)])["hidden_states"]) == 2


def test_shards_that_are_open_are_few(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_OPEN", 2)
    model = cached(tmp_path)
    for seed in range(5):
        model([wav_of(35, seed)])
        model.store.flush()
    later = cached(tmp_path)
    for seed in (0, 1, 2, 3, 4, 0):
        assert_close(later([wav_of(35, seed)]), Frames()([wav_of(35, seed)]), rtol=0, atol=0)
        assert len(later.store._open) <= 2
    assert later.upstream.passes == []


class Configured(Frames):
    def __init__(self, **attributes):
        super().__init__()
        del self.passes
        self.register_buffer("mean", torch.zeros(3), persistent=False)
        self.norm = nn.LayerNorm(3)
        vars(self).update(attributes)


def change_weight(model):
    with torch.no_grad():
        model.weight[1, 2, 3] += 1e-7


def change_buffer(model):
    model.mean[0] = 1e-7


def change_eps(model):
    model.norm.eps = 1e-6


CHANGES = {
    "weight": change_weight,
    "buffer": change_buffer,
    "a layer's setting": change_eps,
    "mode": lambda model: model.train(not model.training),
    "number": lambda model: setattr(model, "rate", 16001),
    "truth": lambda model: setattr(model, "normalize", False),
    "nested": lambda model: model.config["conv"].append(2),
    "namespace": lambda model: setattr(model.args, "x", 2),
    "tensor": lambda model: model.window.add_(1),
}


def settings():
    return {
        "rate": 16000,
        "normalize": True,
        "config": {"conv": [1]},
        "args": SimpleNamespace(x=1),
        "window": torch.zeros(2),
    }


@pytest.mark.parametrize("what", CHANGES)
def test_fingerprint_changes_with(what):
    model = Configured(**settings())
    before = fingerprint(model, "all")
    assert before == fingerprint(Configured(**settings()), "all")
    assert before != fingerprint(model, "one layer")
    CHANGES[what](model)
    assert fingerprint(model, "all") != before


def test_fingerprint_knows_the_code(tmp_path):
    file = tmp_path / "mine.py"
    code = (
        "import torch\nclass Up(torch.nn.Module):\n"
        "    def get_downsample_rates(self, key):\n        return 320\n"
        "    def forward(self, wavs):\n        return {'hidden_states': [wavs[0][None, :50, None] * FACTOR]}\n"
        "def build(**_):\n    return Up()\n"
    )
    found = []
    for factor in (1, 2, 1):
        file.write_text(code.replace("FACTOR", str(factor)))
        found.append(fingerprint(load_upstream(f"{file}:build"), None))
    assert found[0] == found[2] != found[1]


def test_fingerprint_of_what_ships_is_the_same_each_time():
    first, again, unpadded = (
        fingerprint(load_upstream("tiny_hubert", unpadded=unpadded), None) for unpadded in (False, False, True)
    )
    assert first == again != unpadded
    assert len(first) == 32


def test_fingerprint_knows_the_format(monkeypatch):
    before = fingerprint(Frames(), None)
    monkeypatch.setattr(sys.modules[fingerprint.__module__], "FORMAT", 0)
    assert fingerprint(Frames(), None) != before


@pytest.fixture(autouse=True)
def _messages(caplog):
    caplog.set_level(logging.WARNING)
