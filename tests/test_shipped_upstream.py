"""tiny_hubert as it comes with the package: its size, its loading, and that it has learned something."""

import json
import os
import re
import subprocess
import sys
from statistics import median

import pytest
import torch

from s3prl_interfaces.probing.features import log_mel, upstream_extractor, with_random_weights
from s3prl_interfaces.probing.measure import score_layers
from s3prl_interfaces.probing.phonemes import phoneme_task
from s3prl_interfaces.upstream import SHIPPED, load_upstream
from tests.transformers_models import states_of, utterances

FOLDER = SHIPPED["tiny_hubert"]
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def upstream():
    return load_upstream("tiny_hubert").eval()


def test_size(upstream):
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6e6
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= {
        path.name for path in FOLDER.iterdir()
    }
    count = sum(parameter.numel() for parameter in upstream.parameters())
    assert 1.8e6 < count < 2.5e6
    assert f"{count:,} parameters" in CARD
    config = json.loads((FOLDER / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"]) == ("hubert", 12)


def test_hidden_states(upstream):
    states = upstream([torch.randn(16000, generator=torch.Generator().manual_seed(0))])["hidden_states"]
    assert [tuple(state.shape) for state in states] == [(1, 49, 128)] * 13
    assert upstream.get_downsample_rates("hidden_states") == 320
    assert all(state.isfinite().all() for state in states)
    # The blocks do something: no two layers are alike.
    flat = torch.stack([torch.nn.functional.normalize(state.flatten(), dim=0) for state in states])
    assert (flat @ flat.T - torch.eye(13)).max() < 0.999


def test_an_utterance_is_the_same_in_a_padded_batch(upstream):
    wavs = utterances(9600, 4321, 16000)
    together = upstream(wavs)["hidden_states"]
    for index, wav in enumerate(wavs):
        for batched, alone in zip(together, states_of(upstream, [wav]), strict=True):
            torch.testing.assert_close(batched[index, : alone.size(1)], alone[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float16, 3e-3), (torch.bfloat16, 3e-2)])
def test_half_precision(upstream, dtype, off):
    """Nothing overflows: float16 ends at 65,504."""
    wavs = [wav * loud for wav, loud in zip(utterances(16000, 16000, 16000), (1, 100, 1e-3), strict=True)]
    exact = states_of(upstream, wavs)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        states = upstream(wavs)["hidden_states"]
    for state, expected in zip(states, exact, strict=True):
        assert (state.float() - expected).norm() < off * expected.norm()


def test_loading_takes_less_than_a_second_and_no_network():
    """In a process that has what every run imports; three times, as another process may be in the way once."""
    code = """
import socket, time
import transformers.models.hubert.modeling_hubert
from s3prl_interfaces.upstream import load_upstream

def refuse(*_):
    raise AssertionError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
for _ in range(3):
    began = time.perf_counter()
    load_upstream("tiny_hubert")
    print("seconds", time.perf_counter() - began)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds = [float(found) for found in re.findall(r"seconds ([\d.]+)", done.stdout)]
    assert len(seconds) == 3
    assert median(seconds) < 1


def test_it_has_learned_phonemes(upstream):
    """The card's table in small: the middle layer against filterbanks and against the same network untrained."""
    task = phoneme_task(seed=1, scale=0.2)

    def middle(network):
        extract = upstream_extractor(network)
        return score_layers(task, lambda wav: [extract(wav)[6]], "test")[0].accuracy

    trained, random = middle(upstream), middle(with_random_weights(upstream, 0))
    (filterbanks,) = score_layers(task, log_mel, "test")
    assert trained > filterbanks.accuracy + 0.03
    assert trained > random + 0.1


def test_the_card_has_every_layer():
    rows = re.findall(r"^\| (\d+) \|", CARD, flags=re.MULTILINE)
    assert [int(row) for row in rows] == list(range(13))
    for part in ("## Data", "## Recipe", "## Figures", "## Limits", "## Licence"):
        assert part in CARD
