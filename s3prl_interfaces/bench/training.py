"""A training run on an upstream of HuBERT Base's size and on noise, for timing."""

import torch
import torchaudio
from torch import Tensor, nn

from s3prl_interfaces.runner.accumulation import MicroBatch
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.config import check_blocks, load_config
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.metric_logger import MetricLogger
from s3prl_interfaces.runner.plan import Plan
from s3prl_interfaces.runner.training import Position, Trainer
from s3prl_interfaces.runner.variants import variants

LABELS = {
    slot: [f"{slot}{number}" for number in range(count)]
    for slot, count in (("action", 6), ("object", 14), ("location", 4))
}


class HubertBase(nn.Module):
    """torchaudio's HuBERT Base with random weights, behind S3PRL's upstream contract."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torchaudio.models.hubert_base()

    def get_downsample_rates(self, key: str) -> int:
        """Samples per frame."""
        return 320

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        """13 hidden states, each (batch, time, 768): what enters the first Transformer layer, and what each gives."""
        lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
        features, lengths = self.model.feature_extractor(nn.utils.rnn.pad_sequence(wavs, batch_first=True), lengths)
        encoder = self.model.encoder
        projected = encoder.feature_projection(features)
        return {"hidden_states": [projected, *encoder.extract_features(features, lengths)]}


def hubert_base(**_: object) -> HubertBase:
    """As ``-u s3prl_interfaces.bench.training:hubert_base``."""
    torch.manual_seed(0)
    return HubertBase()


def make_trainer(names: tuple[str, ...], upstream: nn.Module, device: torch.device, folder: str) -> Trainer:
    """A run of intent classification with these interfaces, ready for its first step."""
    asked = RunArguments(mode="train", downstream="ic", upstream="hubert_base", interface=list(names), expdir=folder)
    config = load_config(["configs/ic.yaml"])
    config["runner"]["gradient_accumulate_steps"] = 1
    runner = check_blocks(config, strict=True)
    lanes = []
    for variant in variants(asked, config):
        place = variant.args.folder
        place.mkdir(parents=True, exist_ok=True)
        lane = Lane(place, Plan(variant.args, variant.config, None), runner, upstream, device, LABELS)
        lane.start_training(None)
        lane.logger = MetricLogger(str(place))
        lanes.append(lane)
    return Trainer(upstream, lanes, False, 0, runner, device, Position())


def step(trainer: Trainer, wavs: list[Tensor], others: list[object]) -> list[Tensor]:
    """One micro-batch and one update of every lane; returns the lanes' losses."""
    batch = MicroBatch(wavs, others, 0, len(wavs))
    trainer.gradients.add(batch, 1)
    for lane in trainer.lanes:
        lane.update(1)
        lane.records.clear()
        lane.batch_ids.clear()
    trainer.gradients.begin()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return [*batch.losses.values()]


def make_batch(size: int, seconds: float, device: torch.device) -> tuple[list[Tensor], list[object]]:
    """Noise in place of utterances, and labels."""
    wavs = [0.1 * torch.randn(round(16000 * seconds), device=device) for _ in range(size)]
    return wavs, [[torch.zeros(3, dtype=torch.int64)] * size, [f"u{number}" for number in range(size)]]


def make_upstream(device: torch.device) -> nn.Module:
    """Frozen, in eval mode."""
    return hubert_base().to(device).eval().requires_grad_(False)
