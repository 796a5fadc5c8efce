"""A task and an upstream so small that a run takes a moment, and a run of them."""

import sys
import types
from pathlib import Path

import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader

from s3prl_interfaces.runner import RunArguments, run
from s3prl_interfaces.s3prl_compat import prepare

TASK = "toytask"


def put_in_place(patch):
    """Put the task where S3PRL's own tasks are, as long as ``patch`` (pytest's monkeypatch) holds."""
    prepare()
    package = types.ModuleType(f"s3prl.downstream.{TASK}")
    package.__path__ = []
    package.__spec__ = types.SimpleNamespace()  # find_spec asks for it
    patch.setitem(sys.modules, package.__name__, package)
    patch.setitem(sys.modules, f"{package.__name__}.expert", sys.modules[__name__])


class Upstream(nn.Module):
    """Three hidden states of width 6 from blocks of 320 samples."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 6, 320, generator=generator) / 18)

    def get_downsample_rates(self, key: str) -> int:
        return 320

    def forward(self, wavs):
        wavs = nn.utils.rnn.pad_sequence(list(wavs), batch_first=True)
        blocks = wavs[:, : wavs.size(1) // 320 * 320].unflatten(1, (-1, 320))
        return {"hidden_states": [torch.tanh(blocks @ weight.T) for weight in self.weight]}


def build(**_):
    return Upstream()


class DownstreamExpert(nn.Module):
    """S3PRL's protocol, with dropout, a random crop and a shuffled loader: everything that draws random numbers."""

    folds = ("fold1", "fold2")
    fold_key = "downstream_expert.fold"

    def __init__(self, upstream_dim, downstream_expert, expdir, label_state=None, **_):
        super().__init__()
        self.known = label_state
        self.fold = downstream_expert.get("fold")
        self.protocol = downstream_expert.get("protocol", {})
        self.settings = downstream_expert
        self.expdir = Path(expdir)
        self.dropout = nn.Dropout(0.3)
        self.linear = nn.Linear(upstream_dim, 2)
        self.register_buffer("best_score", torch.zeros(1))
        self.seen = []

    def get_dataloader(self, split, epoch=0):
        size = {"train": 22, "dev": 7, "test": 9, "nothing": 0}[split]
        base = {"train": 0, "dev": 100, "test": 200, "nothing": 0}[split]
        items = [self.item(base + index) for index in range(size)]
        return DataLoader(
            items,
            batch_size=self.settings.get("batch_size", 4),
            shuffle=split == "train",
            num_workers=self.settings.get("num_workers", 0),
            collate_fn=lambda batch: self._collate(batch, split),
        )

    def item(self, number):
        generator = torch.Generator().manual_seed(number)
        label = number % 2
        return torch.randn(1600 + 320 * (number % 5), generator=generator) * (1 + 3 * label), label, f"u{number}"

    def _collate(self, batch, split):
        wavs, labels, names = zip(*batch, strict=True)
        if split == "train" and self.settings.get("crop", True):
            wavs = [wav[int(torch.randint(100, ())) :] for wav in wavs]
        return wavs, torch.tensor(labels), names

    def forward(self, split, features, labels, names, records, **_):
        if self.settings.get("nan_at") is not None and self.training and len(self.seen) == self.settings["nan_at"]:
            self.seen.append("nan")
            return self.linear.weight.sum() * float("nan")
        self.seen.append(split)
        pooled = torch.stack([feature.mean(0) for feature in features])
        logits = self.linear(self.dropout(pooled))
        labels = labels.to(logits.device)
        loss = nn.functional.cross_entropy(logits, labels)
        records["loss"].append(loss.item())
        records["acc"] += (logits.argmax(1) == labels).float().tolist()
        records["names"] += names
        records["predict"] += logits.argmax(1).tolist()
        return loss

    def log_records(self, split, records, logger, global_step, **_):
        mean = {key: sum(records[key]) / len(records[key]) for key in ("acc", "loss")}
        for key, value in mean.items():
            logger.add_scalar(f"toy/{split}-{key}", value, global_step=global_step)
        if split == "train":
            with (self.expdir / "losses.txt").open("a") as file:
                file.write("".join(f"{loss!r}\n" for loss in records["loss"]))
            return []
        lines = [f"{name} {label}\n" for name, label in zip(records["names"], records["predict"], strict=True)]
        (self.expdir / f"{split}_predict.txt").write_text("".join(lines))
        if split == "dev" and mean["acc"] > self.best_score.item():
            self.best_score.fill_(mean["acc"])
            return ["dev-best.ckpt"]
        return []

    def label_state(self):
        return ["quiet", "loud"]

    def inference(self, features, names):
        with (self.expdir / "inference.txt").open("a") as file:
            file.write("".join(f"{name}\n" for name in names))
        return self.predict(features)

    def predict(self, features):
        return [{"class": int(self.linear(feature.mean(0)).argmax())} for feature in features]


CONFIG = {
    "runner": {
        "total_steps": 12,
        "gradient_accumulate_steps": 2,
        "log_step": 1,
        "eval_step": 4,
        "save_step": 3,
        "max_keep": 100,
        "eval_dataloaders": ["dev", "test"],
    },
    "optimizer": {"name": "TorchOptim", "torch_optim_name": "AdamW", "lr": 0.05},
    "scheduler": {"name": "linear_schedule_with_warmup", "num_warmup_steps": 2},
    "downstream_expert": {},
}


def toy_run(folder: Path, changes: dict | None = None, **arguments) -> Path:
    """Run the toy task into ``folder/run``; ``changes`` are laid over CONFIG block by block."""
    config = {**CONFIG, **{key: {**CONFIG.get(key, {}), **value} for key, value in (changes or {}).items()}}
    path = folder / "toy.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    defaults = {"mode": "train", "upstream": f"{__name__}:build", "downstream": TASK, "device": "cpu"}
    if arguments.get("past_exp") is None:
        defaults |= {"config": [str(path)], "expdir": str(folder / "run")}
    run(RunArguments(**{**defaults, **arguments}))
    return folder / "run"
