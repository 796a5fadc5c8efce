"""CTC loss, greedy decoding and error rates, against plain formulas."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from downstream_tasks.ctc import CTCExpert, CTCModelConfig, error_rate
from downstream_tasks.heads import RNNsConfig

VOCABULARY = 4


def expert(blank=0, zero_infinity=True):
    torch.manual_seed(0)
    config = CTCModelConfig(project_dim=5, select="FrameLevel")
    return CTCExpert(3, 320, config, vocabulary=VOCABULARY, blank=blank, zero_infinity=zero_infinity)


def collapse(path, blank):
    kept = [token for index, token in enumerate(path) if index == 0 or token != path[index - 1]]
    return [token for token in kept if token != blank]


def by_enumeration(log_probs, target, blank):
    """-log of the summed probability of every path that collapses to the target."""
    paths = itertools.product(range(VOCABULARY), repeat=len(log_probs))
    scores = [
        sum(row[token] for row, token in zip(log_probs, path, strict=True))
        for path in paths
        if collapse(path, blank) == target
    ]
    return -torch.logsumexp(torch.stack(scores), 0)


@pytest.mark.parametrize("blank", [0, 2])
def test_loss_is_the_sum_over_all_paths_by_target_length(blank):
    head = expert(blank)
    features = [torch.randn(4, 3), torch.randn(2, 3)]
    others = [token for token in range(VOCABULARY) if token != blank]
    targets = [[others[0], others[0], others[1]][:2], [others[2]]]
    log_probs, lengths = head.log_probs(features)
    assert log_probs.shape == (2, 4, VOCABULARY)
    assert lengths.tolist() == [4, 2]
    loss = head.loss(log_probs, lengths, [torch.tensor(target) for target in targets])
    expected = [
        by_enumeration(log_probs[row, :length], target, blank) / len(target)
        for row, (target, length) in enumerate(zip(targets, (4, 2), strict=True))
    ]
    assert_close(loss, torch.stack(expected).mean())


def test_a_target_that_does_not_fit_counts_nothing():
    features, targets = [torch.randn(2, 3), torch.randn(5, 3)], [torch.tensor([1, 1, 2]), torch.tensor([3])]
    for zero_infinity in (True, False):
        head = expert(zero_infinity=zero_infinity)
        log_probs, lengths = head.log_probs(features)
        loss = head.loss(log_probs, lengths, targets)
        alone = head.loss(log_probs[1:], lengths[1:], targets[1:])
        assert_close(loss, alone / 2) if zero_infinity else pytest.approx(float("inf")) == loss.item()
        assert torch.isfinite(loss).item() == zero_infinity


def test_padding_changes_nothing():
    head = expert()
    short, long = torch.randn(3, 3), torch.randn(9, 3)
    alone, _ = head.log_probs([short])
    padded, _ = head.log_probs([long, short])
    assert_close(padded[1, :3], alone[0])


def test_greedy_collapses_then_drops_blanks_within_the_length():
    rows = [[1, 1, 0, 1, 3, 3, 2, 0], [0, 0, 2, 2, 2, 0, 0, 1]]
    assert expert().greedy(torch.tensor(rows), torch.tensor([8, 4])) == [[1, 1, 3, 2], [2]]
    assert expert(blank=2).greedy(torch.tensor(rows), torch.tensor([8, 0])) == [[1, 0, 1, 3, 0], []]


def test_rnns_subsample_and_keep_lengths():
    config = RNNsConfig(total_rate=640, dim=(4,), dropout=(0.0,), layer_norm=(True,), proj=(True,), sample_rate=(2,))
    head = CTCExpert(
        3, 320, CTCModelConfig(project_dim=5, select="RNNs", RNNs=config), vocabulary=7, blank=0, zero_infinity=True
    )
    log_probs, lengths = head.log_probs([torch.randn(21, 3), torch.randn(8, 3)])
    assert lengths.tolist() == [5, 2]  # 21 // 2 // 2, 8 // 2 // 2
    assert log_probs.shape == (2, 5, 7)
    assert_close(log_probs.exp().sum(-1), torch.ones(2, 5))


@pytest.mark.parametrize(
    ("hypotheses", "references", "rate"),
    [
        (["abc"], ["abc"], 0),
        (["abd", ""], ["abc", "xyz"], 4 / 6),  # summed over the corpus, not averaged over utterances
        (["abcdef"], ["a"], 5),
        ([["a", "b"]], [["a"]], 1),
        ([], [], 1),
        (["x"], [""], 1),
    ],
)
def test_error_rate(hypotheses, references, rate):
    assert error_rate(hypotheses, references) == pytest.approx(rate)
