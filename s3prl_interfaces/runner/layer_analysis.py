"""What interfaces look at: the score lost when one layer is replaced by its mean over time.

The measure is the same for every interface, so it compares interfaces that have no weights in common. It is one of a
trained model: nothing is trained again. Beside it stand the interface's own weights, where it has some.

The mean is one of two. An utterance's own keeps what a layer says of the utterance as a whole, and takes away what
changes within it. Where interface and head are linear up to a mean over time, nothing is lost by that, whatever the
layer is worth: so it is with a weighted sum (concat, pca_concat, a single layer) before the heads of IC, SID, ER and
KS. The split's mean, over the frames of all utterances, takes away everything but that the layer is there; it needs a
pass of its own.
"""

from __future__ import annotations

import copy
import io
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.interfaces import LayerWeights
from s3prl_interfaces.interfaces.base import at_least_float32, valid_frames
from s3prl_interfaces.results.layers import LayerResult, Weights
from s3prl_interfaces.runner.batches import Batches, readable, run_upstream, to_device
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.metric_logger import MetricLogger
from s3prl_interfaces.runner.outcome import choose_score
from s3prl_interfaces.runner.progress import progress_bar
from s3prl_interfaces.runner.randomness import Stream, capture, preserved

log = logging.getLogger(__name__)

MeanOver = Literal["utterance", "split"]


def analyse_layers(
    upstream: nn.Module,
    lanes: Sequence[Lane],
    split: str,
    *,
    seed: int,
    device: torch.device,
    mean_over: MeanOver = "utterance",
) -> list[LayerResult | None]:
    """Score every lane as it is and without each of its layers, over one pass of the upstream (or two, see below).

    The unchanged score is :func:`~s3prl_interfaces.runner.evaluation.evaluate`'s. The lanes, their folders and all
    random states are left as they were: what the heads write goes to a temporary folder.

    Args:
        upstream: the speech model, with the weights that the lanes were trained on.
        lanes: at least one, each loaded from the checkpoint that its ``start`` names; their data are one.
        split: a name the task's ``get_dataloader`` knows, see :func:`selecting_split`.
        seed: the evaluation's own.
        device: where the models are.
        mean_over: what a layer is replaced by: each ``utterance``'s own mean over time, or the mean over all frames of
            the ``split``, for which the upstream runs once more before.

    Returns:
        One for each lane, for :func:`~s3prl_interfaces.results.layers.write_layers`; None where there is no interface,
        because the upstream gives one hidden state.

    Raises:
        ConfigError: a lane has no checkpoint, the task no such split, or no metric that could be its score.
    """
    with ExitStack() as stack:
        stack.enter_context(preserved(seed))
        stack.enter_context(torch.no_grad())
        modules = [upstream, *(module for lane in lanes for module in lane.modules.values())]
        stack.enter_context(_evaluating(modules))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        made = {index: _Analysis(lane, folder / str(index)) for index, lane in enumerate(lanes) if _has_interface(lane)}
        if made:
            _analyse(upstream, list(made.values()), split, device, mean_over)
        return [made[index].result(split, mean_over) if index in made else None for index in range(len(lanes))]


def selecting_split(lane: Lane) -> str:
    """The split that chose a lane's checkpoint: ``dev`` of ``dev-best.ckpt``, else the first that is evaluated."""
    name = lane.start.path.name if lane.start is not None else ""
    if name.endswith("-best.ckpt"):
        return name.removesuffix("-best.ckpt")
    return getattr(lane.head, "selects_on", None) or lane.runner.eval_dataloaders[0]


def without_layer(states: Sequence[Tensor], layer: int, lengths: Tensor, mean: Tensor | None = None) -> list[Tensor]:
    """Hidden states (B, T, D) with one layer replaced by a mean over time.

    Args:
        states: L tensors; they are not changed, and none but the new layer is made anew.
        layer: which, from 0.
        lengths: valid frames of each utterance, shape (B,), on the same device.
        mean: shape (D,); of each utterance's valid frames, if not given.
    """
    state = states[layer]
    if mean is None:
        padding = torch.arange(state.shape[1], device=state.device) >= lengths[:, None]
        total = at_least_float32(state).masked_fill(padding[..., None], 0).sum(1)
        mean = (total / lengths.clamp(min=1)[:, None])[:, None]  # (B, 1, D)
    return [*states[:layer], mean.to(state.dtype).expand_as(state), *states[layer + 1 :]]


def _has_interface(lane: Lane) -> bool:
    if lane.featurizer.interface is None:
        log.info("%s is left out: the upstream gives one hidden state, and no interface takes it.", lane.name)
        return False
    return True


def _analyse(
    upstream: nn.Module, analyses: Sequence[_Analysis], split: str, device: torch.device, mean_over: MeanOver
) -> None:
    head = analyses[0].lane.head
    if mean_over == "split":
        with preserved():
            for wavs, output, _ in _pass(upstream, Batches(head, split), device, f"means, {split}"):
                for analysis in analyses:
                    analysis.add_to_means(wavs, output)
    batches = Batches(head, split)
    for batch_id, (wavs, output, others) in enumerate(_pass(upstream, batches, device, f"layers, {split}")):
        for analysis in analyses:
            analysis.add(split, wavs, output, others, batch_id)
    for analysis in analyses:
        analysis.score(split, len(batches))


def _pass(
    upstream: nn.Module, batches: Batches, device: torch.device, title: str
) -> Iterator[tuple[list[Tensor], Mapping[str, Any], list[Any]]]:
    """Every batch: utterances, what the upstream makes of them, and what else the loader says of them."""
    for wavs, *others in progress_bar(readable(batches), total=len(batches), desc=title, leave=False):
        wavs = to_device(wavs, device)
        yield wavs, run_upstream(upstream, wavs), others


class _Analysis:
    """One lane's heads: the first sees the layers as they are, the others each lack one."""

    def __init__(self, lane: Lane, folder: Path) -> None:
        if lane.start is None:
            raise ConfigError(
                f"{lane.name} is untrained: what it looks at is asked of a checkpoint, and none is given."
            )
        self.lane = lane
        self.start = lane.start
        self.interface = lane.featurizer.interface
        self.folder = folder
        self.variants = [_Variant(lane, folder / str(number)) for number in range(self.interface.num_layers + 1)]
        self.sums: list[Tensor] = []
        """Of each layer's frames, (D,) float64; empty where the utterances' own means are wanted."""
        self.frames = 0
        self.weights: LayerWeights | None = None
        self.metrics: list[dict[str, float]] = []

    def add_to_means(self, wavs: Sequence[Tensor], output: Mapping[str, Any]) -> None:
        """Take a batch into account in the means over the split."""
        states, lengths = self._states(wavs, output)
        sums = [valid_frames(state, lengths).sum(0, dtype=torch.float64) for state in states]
        self.sums = [old + new for old, new in zip(self.sums, sums, strict=True)] if self.sums else sums
        self.frames += int(lengths.sum())

    def add(
        self, split: str, wavs: Sequence[Tensor], output: Mapping[str, Any], others: Sequence[Any], batch_id: int
    ) -> None:
        """Take a batch into account; the features of one variant at a time."""
        featurizer = self.lane.featurizer
        states, lengths = self._states(wavs, output)
        weights = self.interface.layer_weights(states, lengths)
        if weights is not None:
            self.weights = weights if self.weights is None else self.weights.merged_with(weights)
        for number, variant in enumerate(self.variants):
            seen = states if number == 0 else self._without(states, number - 1, lengths)
            with variant.stream.use():
                features = featurizer(wavs, {**output, featurizer.feature_selection: seen})
                variant.head(split, features, *others, records=variant.records, batch_id=batch_id)

    def _states(self, wavs: Sequence[Tensor], output: Mapping[str, Any]) -> tuple[list[Tensor], Tensor]:
        """L hidden states (B, T, D), and the (B,) frames of each utterance."""
        states = self.lane.featurizer.hidden_states(output)
        lengths = self.lane.featurizer.frame_lengths(wavs, states[0].size(1))
        return states, lengths.to(states[0].device)

    def _without(self, states: Sequence[Tensor], layer: int, lengths: Tensor) -> list[Tensor]:
        mean = self.sums[layer] / max(self.frames, 1) if self.sums else None
        return without_layer(states, layer, lengths, mean)

    def score(self, split: str, batches: int) -> None:
        """Have the heads' ``log_records`` make metrics of all records; that of the unchanged layers may be heard."""
        with MetricLogger(str(self.folder)) as logger:
            for number, variant in enumerate(self.variants):
                with _quiet(number > 0):
                    variant.head.log_records(
                        split,
                        records=variant.records,
                        logger=logger,
                        global_step=self.start.states["Step"],
                        batch_ids=list(range(batches)),
                        total_batch_num=batches,
                    )
                self.metrics.append(logger.take(split))
                variant.records.clear()

    def result(self, split: str, mean_over: MeanOver) -> LayerResult:
        """What is written of the lane.

        Raises:
            ConfigError: none of the metrics can be the score.
        """
        score = choose_score(self.lane, split, self.metrics[0])
        values = [metrics[score.metric] for metrics in self.metrics]
        return LayerResult(
            split=split,
            metric=score.metric,
            higher_is_better=score.higher_is_better,
            score=values[0],
            without=tuple(values[1:]),
            mean_over=mean_over,
            step=self.start.states["Step"],
            checkpoint=self.start.path.name,
            weights=None
            if self.weights is None
            else Weights(
                what=self.weights.what,
                rows=tuple(self.weights.rows),
                values=tuple(tuple(row) for row in self.weights.values.tolist()),
            ),
        )


class _Variant:
    """A copy of a lane's head whose state, files and random numbers are its own. The weights are shared."""

    def __init__(self, lane: Lane, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.head = copy.copy(lane.head)
        # Buffers such as `best_score`, which log_records changes.
        self.head._buffers = {
            name: None if buffer is None else buffer.clone() for name, buffer in lane.head._buffers.items()
        }
        for name, value in vars(self.head).items():
            if isinstance(value, (str, Path)):
                vars(self.head)[name] = _moved(value, lane.folder, folder)
        self.records: dict[str, list[Any]] = defaultdict(list)
        self.stream = Stream(capture())


def _moved(value: str | Path, old: Path, new: Path) -> str | Path:
    """A path at or below ``old`` moved to ``new``; anything else as it is. S3PRL's heads have strings for paths."""
    text = str(value)
    if text != str(old) and not text.startswith(f"{old}{os.sep}"):
        return value
    return type(value)(f"{new}{text[len(str(old)) :]}")


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode inside; afterwards every module's own."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Without what is printed or logged, which would be the same for every layer."""
    if not quiet:
        yield
        return
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
