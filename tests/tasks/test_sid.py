"""Speaker identification, against S3PRL's own ``voxceleb1`` and by itself."""

import random
import sys
import types
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch.testing import assert_close

from downstream_tasks.sid.dataset import read_metadata
from downstream_tasks.sid.expert import DownstreamExpert
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner.config import shipped_configs
from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.parity import run

SPLITS = ("train", "dev", "test")
CROP = 20000


def config_of(corpus, width=24):
    return {
        "datarc": {
            "file_path": str(corpus),
            "meta_data": str(corpus / "veri_test_class.txt"),
            "num_workers": 0,
            "train_batch_size": 5,
            "eval_batch_size": 2,
            "max_timestep": CROP,
        },
        "modelrc": {"projector_dim": width, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}},
    }


def build(cls, corpus, expdir, width=24):
    expdir.mkdir(parents=True, exist_ok=True)
    return cls(upstream_dim=width, upstream_rate=320, downstream_expert=config_of(corpus, width), expdir=str(expdir))


@pytest.fixture
def s3prl_expert(monkeypatch, tmp_path):
    """S3PRL's module; it imports librosa for nothing, and keeps a cache inside its own package (D15)."""
    if "librosa" not in sys.modules:
        util = types.ModuleType("librosa.util")
        util.find_files = None  # imported, never called
        monkeypatch.setitem(sys.modules, "librosa", types.ModuleType("librosa"))
        monkeypatch.setitem(sys.modules, "librosa.util", util)
    module = import_s3prl("s3prl.downstream.voxceleb1.expert")
    monkeypatch.setattr(import_s3prl("s3prl.downstream.voxceleb1.dataset"), "CACHE_PATH", str(tmp_path / "cache"))
    return module.DownstreamExpert


@pytest.fixture
def both(voxceleb1, tmp_path, s3prl_expert):
    """Our expert and S3PRL's with the same weights; S3PRL's has 1251 outputs whatever the metadata says."""
    speakers = len({path.name for path in voxceleb1.glob("*/wav/*")})
    ours = build(DownstreamExpert, voxceleb1, tmp_path / "ours", speakers)
    theirs = build(s3prl_expert, voxceleb1, tmp_path / "theirs", speakers)
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in (ours.projector, ours.model.post_net.linear):
            layer.weight.copy_(torch.eye(speakers) + 0.1 * torch.randn(speakers, speakers))
            layer.bias.copy_(0.1 * torch.randn(speakers))
        theirs.projector.load_state_dict(ours.projector.state_dict())
        # The speakers that are not there can never be the answer, and add nothing to the loss.
        output = theirs.model.post_net.linear
        output.weight.zero_()[:speakers] = ours.model.post_net.linear.weight
        output.bias.fill_(-1e9)[:speakers] = ours.model.post_net.linear.bias
    return ours, theirs


def test_parameters_have_s3prls_names(both):
    ours, theirs = both
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("split", SPLITS)
def test_batches_are_s3prls(both, split, s3prls_order):
    batches = []
    for expert in both:
        torch.manual_seed(3)
        batches.append(list(expert.get_dataloader(split)))
    assert len(batches[0]) == len(batches[1]) > 1
    for (wavs, ids, names), (their_wavs, their_ids, their_names) in zip(*batches, strict=True):
        assert [len(wav) for wav in wavs] == [len(wav) for wav in their_wavs]
        if split != "train":  # whose crops are at random
            assert all(np.array_equal(one, other) for one, other in zip(wavs, their_wavs, strict=True))
        assert [int(row[0]) for row in ids] == list(their_ids)
        assert names == their_names
    longest = max(len(wav) for wavs, *_ in batches[0] for wav in wavs)
    assert (longest == CROP) == (split == "train")


def test_crops_are_s3prls(both):
    ours, theirs = both[0].datasets["train"], both[1].train_dataset
    for index in range(len(ours)):
        wavs = []
        for dataset in (ours, theirs):
            random.seed(index)
            wavs.append(dataset[index][0])
        assert np.array_equal(*wavs)


@pytest.mark.parametrize("split", SPLITS)
def test_loss_and_accuracy_are_s3prls(both, split, s3prls_order):
    results = []
    for expert in both:
        losses, scalars, _ = run(expert, split, 2.0, both[0].labels.sizes, step=1)
        results.append((losses, scalars))
    (losses, scalars), (their_losses, their_scalars) = results
    assert_close(losses, their_losses, atol=1e-5, rtol=1e-5)
    assert {key: scalars[key] for key in their_scalars} == pytest.approx(their_scalars, abs=1e-5)
    assert 0 < scalars[f"voxceleb1/{split}-acc", 1] < 1


def test_the_best_on_dev_is_s3prls(both):
    decisions = [
        [run(expert, "dev", noise, both[0].labels.sizes, step)[2] for step, noise in enumerate((4.0, 2.0, 2.0, 0.1))]
        for expert in both
    ]
    assert decisions[0] == decisions[1]
    assert [] in decisions[0]
    assert ["dev-best.ckpt"] in decisions[0]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_predictions_are_s3prls_and_each_utterance_is_there_once(both, split):
    for expert in both:
        run(expert, split, 2.0, both[0].labels.sizes, step=1)
    for kind in ("predict", "truth"):
        text = (both[0].expdir / f"{split}_{kind}.txt").read_text()
        assert text == (both[0].expdir.parent / "theirs" / f"{split}_{kind}.txt").read_text()
    names = Counter(line.split()[0] for line in text.splitlines())
    expected = Counter(utterance.name for utterance in both[0].datasets[split].utterances)
    assert names == expected
    assert set(names.values()) == {1}


def test_the_metadata_is_all_that_counts(voxceleb1):
    lines = (voxceleb1 / "veri_test_class.txt").read_text().split("\n")
    splits = read_metadata(voxceleb1 / "veri_test_class.txt", voxceleb1)
    for number, split in enumerate(SPLITS, start=1):
        expected = [line.split()[1] for line in lines if line.startswith(f"{number} ")]
        assert ["/".join(utterance.path.parts[-3:]) for utterance in splits[split]] == expected
        assert all(utterance.path.is_file() for utterance in splits[split])


def test_another_corpus_is_another_corpus(voxceleb1, tmp_path, s3prl_expert):
    """D15: S3PRL keeps its file list by the split's name alone, so a second corpus gives the first one's files."""
    second = tmp_path / "second"
    (second / "dev" / "wav").mkdir(parents=True)
    lines = []
    for speaker in ("id10001", "id10002"):
        for split in (1, 2, 3):
            folder = second / "dev" / "wav" / speaker / f"video{split}"
            folder.mkdir(parents=True)
            soundfile.write(folder / "00001.wav", np.zeros(800), 16000)
            lines.append(f"{split} {speaker}/video{split}/00001.wav\n")
    (second / "veri_test_class.txt").write_text("".join(lines))
    sizes = []
    for cls in (DownstreamExpert, s3prl_expert):
        build(cls, voxceleb1, tmp_path / "a")
        expert = build(cls, second, tmp_path / "b")
        sizes.append(len(expert.get_dataloader("test").dataset))
    assert sizes[0] == 2
    assert sizes[1] > 2


def test_a_missing_file_is_named_when_it_is_read(voxceleb1, tmp_path, s3prl_expert):
    """D15: S3PRL's answer is an IndexError without the file's name."""
    metadata = tmp_path / "meta.txt"
    speaker = next(voxceleb1.glob("*/wav/*")).name
    text = (voxceleb1 / "veri_test_class.txt").read_text()
    metadata.write_text(text + f"3 {speaker}/nosuchvideo/00009.wav\n")
    block = config_of(voxceleb1)
    block["datarc"]["meta_data"] = str(metadata)
    with pytest.raises(IndexError):
        s3prl_expert(upstream_dim=4, downstream_expert=block, expdir=str(tmp_path))
    expert = DownstreamExpert(upstream_dim=4, downstream_expert=block, expdir=str(tmp_path))
    with pytest.raises(DataError, match=r"nosuchvideo/00009\.wav cannot be read: it does not exist"):
        list(expert.get_dataloader("test"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("4 id10001/a/00001.wav", r"line 1: must be `<1\|2\|3>"),
        ("1 id10001/00001.wav", r"line 1: must be `<1\|2\|3>"),
        ("1 id99999/a/00001.wav", r"no folder \*/wav/id99999, which .*meta\.txt, line 1 names"),
        ("", "has no utterance of split train"),
    ],
)
def test_metadata_that_cannot_be_used(voxceleb1, tmp_path, line, message):
    (tmp_path / "meta.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        read_metadata(tmp_path / "meta.txt", voxceleb1)


def test_what_is_missing_is_named(voxceleb1, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.txt cannot be read.*veri_test_class"):
        read_metadata(tmp_path / "nothing.txt", voxceleb1)
    with pytest.raises(DataError, match=r"nowhere does not exist: .*file_path"):
        read_metadata(voxceleb1 / "veri_test_class.txt", tmp_path / "nowhere")
    block = config_of(voxceleb1)
    block["datarc"]["max_timesteps"] = block["datarc"].pop("max_timestep")
    with pytest.raises(ConfigError, match="Did you mean 'max_timestep'"):
        DownstreamExpert(upstream_dim=4, downstream_expert=block, expdir=str(tmp_path))


def test_the_shipped_config_is_superbs(voxceleb1, tmp_path):
    config = yaml.safe_load((shipped_configs() / "sid.yaml").read_text())
    assert config["runner"] == {
        "total_steps": 200000,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 4,
        "log_step": 500,
        "eval_step": 5000,
        "save_step": 1000,
        "max_keep": 1,
        "eval_dataloaders": ["dev", "test"],
    }
    assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1.0e-4}
    block = config["downstream_expert"]
    block["datarc"].update(file_path=str(voxceleb1), meta_data=str(voxceleb1 / "veri_test_class.txt"))
    expert = DownstreamExpert(upstream_dim=4, downstream_expert=block, expdir=str(tmp_path))
    assert expert.loader.train_batch_size == 8
    assert expert.loader.eval_batch_size == 1
    assert expert.datasets["train"].max_timestep == 128000
    assert expert.datasets["test"].max_timestep is None
    assert expert.projector.out_features == 256
    assert expert.protocol == {"accuracy": "pooled"}
