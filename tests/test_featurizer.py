"""Both adapters against S3PRL's own featurizers."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from s3prl_interfaces.errors import ConfigError, UpstreamError
from s3prl_interfaces.featurizer import InterfaceFeaturizer, InterfaceNNFeaturizer
from s3prl_interfaces.s3prl_compat import import_s3prl

S3PRLFeaturizer = import_s3prl("s3prl.upstream.interfaces").Featurizer
hub = import_s3prl("s3prl.hub")
s3prl_nn = import_s3prl("s3prl.nn")

LAYERS, WIDTH, RATE = 5, 9, 320


class TinyUpstream(nn.Module):
    """Random hidden states, the same for the same lengths; ``surplus`` frames more than the rate says."""

    def __init__(self, layers=LAYERS, width=WIDTH, container=list, surplus=0, **_):
        super().__init__()
        self.layers, self.width, self.container, self.surplus = layers, width, container, surplus

    def get_downsample_rates(self, key):
        return RATE

    def forward(self, wavs):
        frames = round(max(map(len, wavs)) / RATE) + self.surplus
        generator = torch.Generator().manual_seed(0)
        states = [torch.randn(len(wavs), frames, self.width, generator=generator) * 3 + 1 for _ in range(self.layers)]
        return {"hidden_states": self.container(states), "last_hidden_state": states[-1]}


class Returns(nn.Module):
    """An upstream that returns what it was told to, and does not know its rate."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, wavs):
        return self.output


def as_dict(states):
    return {f"layer{index}": state for index, state in enumerate(states)}


def wavs_of(*samples):
    return [torch.linspace(-0.5, 0.5, count) for count in samples]


def ours_and_theirs(upstream, **options):
    ours = InterfaceFeaturizer(upstream, upstream_device="cpu", **options)
    theirs = S3PRLFeaturizer(upstream, upstream_device="cpu", **options)
    for weights in theirs.parameters():
        nn.init.normal_(weights)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def assert_same(ours, theirs, upstream, wavs):
    """Same sizes, same features, same number of frames."""
    assert (ours.output_dim, ours.downsample_rate) == (theirs.output_dim, theirs.downsample_rate)
    output = upstream(wavs)
    actual, expected = ours(wavs, output), theirs(wavs, output)
    assert len(actual) == len(wavs)
    for row, wanted in zip(actual, expected, strict=True):
        assert_close(row, wanted, rtol=1e-5, atol=1e-6)


WAVS = wavs_of(20 * RATE + 100, 13 * RATE, 7 * RATE + 160)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("container", [list, tuple, as_dict])
def test_the_weighted_sum_is_s3prls(container, normalize):
    torch.manual_seed(0)
    upstream = TinyUpstream(container=container)
    ours, theirs = ours_and_theirs(upstream, normalize=normalize)
    assert isinstance(ours, S3PRLFeaturizer)
    assert_same(ours, theirs, upstream, WAVS)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("layer", [0, 3, -1])
def test_one_selected_layer_is_s3prls(layer, normalize):
    upstream = TinyUpstream()
    ours, theirs = ours_and_theirs(upstream, layer_selection=layer, normalize=normalize)
    assert not ours.state_dict()
    assert_same(ours, theirs, upstream, WAVS)
    assert torch.equal(ours(WAVS, upstream(WAVS))[0], upstream(WAVS)["hidden_states"][layer][0])


def test_one_key_is_s3prls():
    upstream = TinyUpstream()
    ours, theirs = ours_and_theirs(upstream, feature_selection="last_hidden_state")
    assert not ours.state_dict()
    assert_same(ours, theirs, upstream, WAVS)


def test_an_upstream_of_one_layer_is_s3prls():
    upstream = hub.fbank()
    ours, theirs = ours_and_theirs(upstream)
    wavs = wavs_of(16000, 11200)
    assert not ours.state_dict()
    assert_same(ours, theirs, upstream, wavs)
    assert [tuple(row.shape) for row in ours(wavs, upstream(wavs))] == [(98, 240), (70, 240)]


def test_a_rate_that_the_upstream_does_not_say_is_s3prls():
    upstream = Returns({"hidden_states": [torch.randn(1, 49, WIDTH)] * 2})
    ours, theirs = ours_and_theirs(upstream)
    assert_same(ours, theirs, upstream, wavs_of(16000))
    assert ours.downsample_rate == 327


def test_lengths_are_rounded_half_to_even_and_never_extended():
    upstream = TinyUpstream(surplus=-1)
    ours, theirs = ours_and_theirs(upstream)
    wavs = wavs_of(2 * RATE + 160, 3 * RATE + 160, 5 * RATE, 1)
    assert [len(row) for row in ours(wavs, upstream(wavs))] == [2, 4, 4, 0]
    assert_same(ours, theirs, upstream, wavs)


def test_the_interface_gets_the_lengths():
    class Recorder(nn.Module):
        def forward(self, hidden_states, lengths):
            self.lengths = lengths.tolist()
            return hidden_states[0]

    upstream = TinyUpstream(surplus=-1)
    featurizer = InterfaceFeaturizer(upstream, upstream_device="cpu")
    featurizer.interface = Recorder()
    featurizer(WAVS, upstream(WAVS))
    assert featurizer.interface.lengths == [19, 13, 8]


@pytest.mark.parametrize("surplus", [-5, 5])
def test_frames_that_do_not_go_with_the_rate_are_an_error_from_where_s3prl_asserts(surplus):
    near, far = TinyUpstream(surplus=surplus // 5 * 4), TinyUpstream(surplus=surplus)
    ours, theirs = ours_and_theirs(near)
    assert_same(ours, theirs, near, WAVS)
    with pytest.raises(AssertionError):
        theirs(WAVS, far(WAVS))
    with pytest.raises(UpstreamError, match=rf"{20 + surplus} frames for 6500 samples.*get_downsample_rates"):
        ours(WAVS, far(WAVS))


def test_an_unknown_key_is_said_and_hidden_states_are_used(caplog):
    upstream = TinyUpstream()
    with caplog.at_level(logging.WARNING):
        featurizer = InterfaceFeaturizer(upstream, feature_selection="hidden", upstream_device="cpu")
    assert "`hidden`" in caplog.text
    assert "last_hidden_state" in caplog.text
    assert_same(featurizer, S3PRLFeaturizer(upstream, upstream_device="cpu"), upstream, WAVS)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"last": torch.randn(1, 50, 4)}, "no `hidden`.*no `hidden_states`.*Possible: last"),
        ([torch.randn(1, 50, 4)], "must return a dict, but returns list"),
        ({"hidden_states": [torch.randn(50, 4)] * 2}, "must hold .batch, time, width. tensors"),
        ({"hidden_states": [torch.randn(1, 50, 4), torch.randn(1, 50, 5)]}, r"one width.*\[4, 5\]"),
        ({"hidden_states": [torch.randn(1, 50, 4), torch.randn(1, 25, 4)]}, "one length"),
    ],
)
def test_an_output_that_cannot_be_combined_is_an_error(output, message):
    with pytest.raises(UpstreamError, match=message):
        InterfaceFeaturizer(Returns(output), feature_selection="hidden", upstream_device="cpu")


def test_weights_of_s3prl_load_and_ours_load_again():
    ours, theirs = ours_and_theirs(TinyUpstream())
    assert torch.equal(ours.interface.weights, theirs.weights)
    assert list(ours.state_dict()) == ["interface.weights"]
    again = nn.ModuleDict({"featurizer": InterfaceFeaturizer(TinyUpstream(), upstream_device="cpu")})
    for state in (theirs.state_dict(prefix="featurizer."), nn.ModuleDict({"featurizer": ours}).state_dict()):
        nn.init.zeros_(again["featurizer"].interface.weights)
        before = list(state)
        again.load_state_dict(state)
        assert torch.equal(again["featurizer"].interface.weights, theirs.weights)
        assert list(state) == before


def test_the_width_is_the_interfaces():
    upstream = TinyUpstream()
    featurizer = InterfaceFeaturizer(upstream, upstream_device="cpu", interface="hconv")
    assert featurizer.output_dim == 8  # 5 layers become 2 of 4 channels each
    assert [tuple(row.shape) for row in featurizer(WAVS, upstream(WAVS))] == [(20, 8), (13, 8), (8, 8)]


def test_options_and_normalize_reach_the_interface():
    options = {"kernel_size": 3}
    featurizer = InterfaceFeaturizer(
        TinyUpstream(), upstream_device="cpu", interface="hconv", interface_options=options, normalize=True
    )
    assert featurizer.interface.convs[0].kernel_size == (3,)
    assert featurizer.interface.normalize
    assert options == {"kernel_size": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interface": "hcnov"}, "interface: Unknown interface 'hcnov'. Did you mean 'hconv'"),
        (
            {"interface": "hconv", "interface_options": {"kernel_sise": 3}},
            "'hconv'.*'kernel_sise'. Did you mean 'kernel_size'",
        ),
        ({"interface": "hconv", "interface_options": {"stride": 6}}, "`stride`, 6"),
        ({"interface": "hconv", "layer_selection": 2}, "`-l` takes one layer, `hconv` combines layers"),
        ({"layer_selection": 5}, "`-l 5`: the upstream has layers 0 to 4"),
    ],
)
def test_an_interface_that_does_not_fit_is_an_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        InterfaceFeaturizer(TinyUpstream(), upstream_device="cpu", **arguments)


def test_too_few_layers_for_the_interface_are_an_error():
    with pytest.raises(ConfigError, match="`num_layers` must be at least"):
        InterfaceFeaturizer(TinyUpstream(layers=1), upstream_device="cpu", interface="hconv")


@pytest.mark.parametrize("layers", [LAYERS - 1, LAYERS + 1])
def test_another_number_of_layers_than_before_is_an_error(layers):
    featurizer = InterfaceFeaturizer(TinyUpstream(), upstream_device="cpu")
    with pytest.raises(UpstreamError, match=rf"gave {layers} layers, and {LAYERS} before.*layerdrop"):
        featurizer(WAVS, TinyUpstream(layers=layers)(WAVS))


def test_the_upstream_is_probed_in_eval_mode():
    upstream = TinyUpstream().train()
    InterfaceFeaturizer(upstream, upstream_device="cpu")
    assert not upstream.training


SIZES = SimpleNamespace(num_layers=LAYERS, hidden_sizes=[WIDTH] * LAYERS, downsample_rates=[RATE] * LAYERS)
LENGTHS = torch.tensor([11, 6])


@pytest.fixture
def states():
    return list(torch.randn(LAYERS, 2, 11, WIDTH, generator=torch.Generator().manual_seed(1)) * 3 + 1)


def nn_ours_and_theirs(upstream, **options):
    ours, theirs = InterfaceNNFeaturizer(upstream, **options), s3prl_nn.Featurizer(upstream, **options)
    for weights in theirs.parameters():  # none where the upstream has one layer
        nn.init.normal_(weights)
        ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def assert_same_nn(ours, theirs, states, lengths):
    assert (ours.output_size, ours.downsample_rate) == (theirs.output_size, theirs.downsample_rate)
    (features, frames), (expected, expected_frames) = ours(states, lengths), theirs(states, lengths)
    assert_close(features, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(frames, expected_frames)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("selections", [None, [1, 3], [4, 0, 2]])
def test_nn_weighted_sum_is_s3prls(states, selections, normalize):
    torch.manual_seed(0)
    ours, theirs = nn_ours_and_theirs(SIZES, layer_selections=selections, normalize=normalize)
    assert_same_nn(ours, theirs, states, [LENGTHS] * LAYERS)


@pytest.mark.parametrize("name", ["tiny", "fbank"])
def test_nn_behind_an_s3prl_upstream_is_s3prls(monkeypatch, name):
    monkeypatch.setattr(hub, "tiny", TinyUpstream, raising=False)
    upstream = s3prl_nn.S3PRLUpstream(name).eval()
    ours, theirs = nn_ours_and_theirs(upstream)
    states, lengths = upstream(torch.randn(2, 6500), torch.tensor([6500, 4000]))
    assert_same_nn(ours, theirs, states, lengths)
    assert ours(states, lengths)[1].tolist() == {"tiny": [21, 13], "fbank": [41, 25]}[name]


def test_nn_takes_a_single_selected_layer(states):
    features, frames = InterfaceNNFeaturizer(SIZES, layer_selections=[3])(states, [LENGTHS] * LAYERS)
    assert_close(features, states[3])
    assert torch.equal(frames, LENGTHS)


def test_nn_lengths_of_selected_layers_must_agree(states):
    lengths = [LENGTHS] * (LAYERS - 1) + [LENGTHS - 1]
    with pytest.raises(ValueError, match="different lengths"):
        InterfaceNNFeaturizer(SIZES)(states, lengths)
    _, frames = InterfaceNNFeaturizer(SIZES, layer_selections=[0, 1])(states, lengths)
    assert torch.equal(frames, LENGTHS)


def test_nn_width_and_options_are_the_interfaces(states):
    featurizer = InterfaceNNFeaturizer(SIZES, "hconv", {"kernel_size": 3, "padding": 2})
    features, _ = featurizer(states, [LENGTHS] * LAYERS)
    assert featurizer.interface.convs[0].kernel_size == (3,)
    assert featurizer.output_size == features.size(2) == 9  # 5 layers become 3 of 3 channels each


@pytest.mark.parametrize("selections", [[], [5], [-1]])
def test_nn_layers_that_are_not_there_are_an_error(selections):
    with pytest.raises(ConfigError, match="must be among 0 to 4"):
        InterfaceNNFeaturizer(SIZES, layer_selections=selections)


def test_nn_errors_name_the_interface_and_the_layers():
    with pytest.raises(ConfigError, match=r"interface: .*Did you mean 'hconv'"):
        InterfaceNNFeaturizer(SIZES, "hcnov")
    for change in ({"hidden_sizes": [8, 8, 8, 8, 9]}, {"downsample_rates": [160, 320, 320, 320, 320]}):
        with pytest.raises(UpstreamError, match="one width and one frame rate"):
            InterfaceNNFeaturizer(SimpleNamespace(**(vars(SIZES) | change)))
