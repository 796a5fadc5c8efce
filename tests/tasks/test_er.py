"""Emotion recognition, against S3PRL's own ``emotion`` and by itself."""

import json
import logging
import os
import shutil
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch.testing import assert_close

from downstream_tasks.er import dataset as er_dataset
from downstream_tasks.er import prepare
from downstream_tasks.er.dataset import read_fold
from downstream_tasks.er.expert import FOLDS, DownstreamExpert
from downstream_tasks.er.prepare import write_metadata
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments
from s3prl_interfaces.runner import run as run_task
from s3prl_interfaces.runner.config import shipped_configs
from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.parity import run

SPLITS = ("train", "dev", "test")
SIZES = [4]
LABELS = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
S3PRLExpert = import_s3prl("s3prl.downstream.emotion.expert").DownstreamExpert


def config_of(corpus, **datarc):
    return {
        "datarc": {
            "root": str(corpus),
            "meta_data": str(corpus / "meta_data"),
            "pre_load": False,
            "num_workers": 0,
            "train_batch_size": 4,
            "eval_batch_size": 3,
            "valid_ratio": 0.2,
            **datarc,
        },
        "modelrc": {"projector_dim": 4, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}},
    }


def build(cls, corpus, expdir, variant=None, **datarc):
    expdir.mkdir(parents=True, exist_ok=True)
    return cls(
        upstream_dim=4,
        upstream_rate=320,
        downstream_expert=config_of(corpus, **datarc),
        expdir=str(expdir),
        downstream_variant=variant,
    )


def listed(expert, split):
    """The paths of a split of either expert, in its order."""
    if isinstance(expert, DownstreamExpert):
        return [str(utterance.path) for utterance in expert.datasets[split].utterances]
    subset = getattr(expert, f"{split}_dataset")
    dataset, order = (subset, range(len(subset))) if split == "test" else (subset.dataset, subset.indices)
    return [f"{dataset.data_dir}/{dataset.meta_data[index]['path']}" for index in order]


@pytest.fixture
def both(iemocap, tmp_path):
    """Our expert and S3PRL's with the same weights."""
    ours = build(DownstreamExpert, iemocap, tmp_path / "ours", test_fold="fold2")
    theirs = build(S3PRLExpert, iemocap, tmp_path / "theirs", test_fold="fold2")
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in (ours.projector, ours.model.post_net.linear):
            layer.weight.copy_(torch.eye(4) + 0.1 * torch.randn(4, 4))
            layer.bias.copy_(0.1 * torch.randn(4))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_checkpoints_load_both_ways(both):
    ours, theirs = both
    shapes = [{name: value.shape for name, value in expert.state_dict().items()} for expert in both]
    assert shapes[0] == shapes[1]
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("fold", FOLDS)
def test_the_splits_of_each_fold_are_s3prls(iemocap, tmp_path, fold):
    ours = build(DownstreamExpert, iemocap, tmp_path, test_fold=fold)
    theirs = build(S3PRLExpert, iemocap, tmp_path, test_fold=fold)
    lists = {split: listed(ours, split) for split in SPLITS}
    assert lists == {split: listed(theirs, split) for split in SPLITS}
    assert [len(names) for names in lists.values()] == [25, 7, 8]
    assert len(set().union(*lists.values())) == 40
    assert all(f"/Session{fold[-1]}/" in name for name in lists["test"])
    assert not [name for name in lists["train"] + lists["dev"] if f"/Session{fold[-1]}/" in name]


@pytest.mark.parametrize("pre_load", [True, False])
@pytest.mark.parametrize("split", SPLITS)
def test_batches_are_s3prls(iemocap, tmp_path, split, pre_load, s3prls_order):
    batches = []
    for cls in (DownstreamExpert, S3PRLExpert):
        expert = build(cls, iemocap, tmp_path, pre_load=pre_load)
        torch.manual_seed(3)
        batches.append(list(expert.get_dataloader(split)))
    assert len(batches[0]) == len(batches[1]) > 1
    for (wavs, ids, names), (their_wavs, their_ids, their_names) in zip(*batches, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(wavs, their_wavs, strict=True))
        assert [int(row[0]) for row in ids] == list(their_ids)
        assert names == their_names


@pytest.mark.parametrize("split", SPLITS)
def test_loss_and_accuracy_are_s3prls(both, split, s3prls_order):
    (losses, scalars, _), (their_losses, their_scalars, _) = [run(expert, split, 2.0, SIZES, step=1) for expert in both]
    assert_close(losses, their_losses, atol=1e-5, rtol=1e-5)
    assert {key: scalars[key] for key in their_scalars} == pytest.approx(their_scalars, abs=1e-5)
    assert 0 < scalars[f"emotion-fold2/{split}-acc", 1] < 1


def test_the_best_on_dev_is_s3prls(both):
    decisions = [
        [run(expert, "dev", noise, SIZES, step)[2] for step, noise in enumerate((4.0, 2.0, 2.0, 0.1))]
        for expert in both
    ]
    assert decisions[0] == decisions[1]
    assert [] in decisions[0]
    assert ["dev-best.ckpt"] in decisions[0]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_predictions_are_s3prls_and_each_utterance_is_there_once(both, split, tmp_path):
    for expert in both:
        run(expert, split, 2.0, SIZES, step=1)
    files = [f"{split}_fold2_predict.txt", f"{split}_fold2_truth.txt"]
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == files
    for file in files:
        text = (tmp_path / "ours" / file).read_bytes()
        assert text == (tmp_path / "theirs" / file).read_bytes()
    names = Counter(line.split()[0] for line in text.decode().splitlines())
    assert names == Counter(utterance.path.stem for utterance in both[0].datasets[split].utterances)
    assert set(names.values()) == {1}


def test_inference_names_the_emotion(both, tmp_path):
    ours, _ = both
    with torch.no_grad():
        answers = ours.inference([5.0 * torch.eye(4)[[2, 2]], 5.0 * torch.eye(4)[[3]]], ["one", "two"])
    assert answers == [{"emotion": "ang"}, {"emotion": "sad"}]
    assert (tmp_path / "ours" / "inference.txt").read_text() == "one ang\ntwo sad\n"


@pytest.mark.parametrize(
    ("configured", "variant", "fold"),
    [
        ("fold2", "fold3", "fold2"),
        ("fold2", None, "fold2"),
        (None, "fold3", "fold3"),
        ("", "fold3", "fold3"),
        (None, None, "fold1"),
    ],
)
def test_the_fold_is_s3prls(iemocap, tmp_path, caplog, configured, variant, fold):
    with caplog.at_level(logging.WARNING):
        for cls in (DownstreamExpert, S3PRLExpert):
            expert = build(cls, iemocap, tmp_path, variant, test_fold=configured)
            assert expert.fold == fold
            assert f"/Session{fold[-1]}/" in listed(expert, "test")[0]
    told = [record.message for record in caplog.records if record.name == "downstream_tasks.er.expert"]
    assert told == (["The config's test_fold fold2 is used, not `-v fold3`."] if configured and variant else [])


def test_the_seed_counts_for_the_head_and_not_for_the_split(iemocap, tmp_path):
    """D23: S3PRL's head starts the same whatever the seed; the split has to be the same."""
    heads, splits = {}, []
    for cls in (DownstreamExpert, S3PRLExpert):
        for seed in (1, 2):
            torch.manual_seed(seed)
            expert = build(cls, iemocap, tmp_path)
            heads[cls, seed] = expert.projector.weight.detach()
            splits.append((listed(expert, "train"), listed(expert, "dev")))
    assert torch.equal(heads[S3PRLExpert, 1], heads[S3PRLExpert, 2])
    assert not torch.equal(heads[DownstreamExpert, 1], heads[DownstreamExpert, 2])
    assert all(split == splits[0] for split in splits)


def test_reading_a_fold_leaves_the_global_generator_alone(iemocap):
    before = torch.get_rng_state()
    read_fold(iemocap / "meta_data", iemocap, "fold1", 0.2)
    assert torch.equal(torch.get_rng_state(), before)


def tiny_corpus(root, rate_of=lambda number: 16000):
    """Sessions 1 and 2 of three utterances each, of a tenth of a second."""
    entries = {}
    for session in ("Session1", "Session2"):
        paths = [f"{session}/sentences/wav/dialog/{session}_{number}.wav" for number in range(3)]
        (root / session / "sentences" / "wav" / "dialog").mkdir(parents=True)
        for number, path in enumerate(paths):
            rate = rate_of(number)
            soundfile.write(root / path, 0.1 * np.sin(np.arange(rate // 10)), rate)
        entries[session] = [{"path": path, "label": "neu", "speaker": "Ses01F"} for path in paths]
    folder = root / "meta_data" / "Session1"
    folder.mkdir(parents=True)
    for split, session in (("train", "Session2"), ("test", "Session1")):
        content = {"labels": LABELS, "meta_data": entries[session]}
        (folder / f"{split}_meta_data.json").write_text(json.dumps(content))
    return root


def test_each_file_has_its_own_rate(tmp_path):
    """D23: S3PRL resamples every file as if it had the first one's rate."""
    corpus = tiny_corpus(tmp_path, rate_of=lambda number: 16000 // 2**number)
    lengths = [
        [len(wavs[0]) for wavs, *_ in build(cls, corpus, tmp_path, eval_batch_size=1).get_dataloader("test")]
        for cls in (DownstreamExpert, S3PRLExpert)
    ]
    assert lengths == [[1600, 1600, 1600], [1600, 800, 400]]


def test_pre_load_reads_each_wav_once(tmp_path, monkeypatch):
    read, load_audio = [], er_dataset.load_audio
    monkeypatch.setattr(er_dataset, "load_audio", lambda path: read.append(path) or load_audio(path))
    corpus = tiny_corpus(tmp_path)
    for pre_load, at_the_start, in_the_end in ((True, 6, 6), (False, 0, 6)):
        read.clear()
        expert = build(DownstreamExpert, corpus, tmp_path, pre_load=pre_load)
        assert len(read) == at_the_start
        batches = [batch for split in SPLITS for batch in expert.get_dataloader(split)]
        assert sum(len(names) for *_, names in batches) == 6
        assert len(read) == in_the_end


# The metadata.


@pytest.fixture
def preprocess(monkeypatch):
    """S3PRL's script, given a librosa; ``order`` puts the listing of a directory in order, which S3PRL does not."""
    util = types.ModuleType("librosa.util")
    util.find_files = None
    if "librosa" not in sys.modules:
        monkeypatch.setitem(sys.modules, "librosa", types.ModuleType("librosa"))
        monkeypatch.setitem(sys.modules, "librosa.util", util)
    module = import_s3prl("s3prl.downstream.emotion.IEMOCAP_preprocess")

    def run_it(root, order=sorted):
        def listdir(folder):
            return order([path.name for path in Path(folder).iterdir()])

        def find_files(folder):
            return [str(path) for path in Path(folder).rglob("*.wav")]

        system = types.SimpleNamespace(path=os.path, makedirs=os.makedirs, listdir=listdir)
        monkeypatch.setattr(module, "os", system)
        monkeypatch.setattr(module, "find_files", find_files)
        module.main(str(root))

    return run_it


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}


def test_metadata_is_s3prls(iemocap, tmp_path, preprocess):
    shutil.copytree(iemocap, tmp_path / "theirs", ignore=shutil.ignore_patterns("meta_data"))
    preprocess(tmp_path / "theirs")
    write_metadata(str(iemocap), str(tmp_path / "ours"))
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs" / "meta_data")
    assert contents(tmp_path / "ours") == contents(iemocap / "meta_data")
    assert len(contents(tmp_path / "ours")) == 10


def annotated(root, dialogs):
    """A corpus of annotations, one utterance in each dialog, and empty wavs."""
    for session, names in dialogs.items():
        (root / session / "dialog" / "EmoEvaluation").mkdir(parents=True)
        for name in names:
            line = f"[0.0000 - 1.0000]\t{name}_F000\tneu\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
            (root / session / "dialog" / "EmoEvaluation" / f"{name}.txt").write_text(line)
            (root / session / "sentences" / "wav" / name).mkdir(parents=True)
            (root / session / "sentences" / "wav" / name / f"{name}_F000.wav").touch()
    return root


def test_the_dialogs_of_iemocap_have_the_order_of_s3prls_files(tmp_path, preprocess):
    dialogs = {
        session: [f"Ses0{session[-1]}{name}" for name in names.split()] for session, names in prepare._ORDER.items()
    }
    assert [len(set(names)) for names in dialogs.values()] == [28, 30, 32, 30, 31]  # 151, all of IEMOCAP's
    corpus = annotated(tmp_path / "corpus", dialogs)
    (corpus / "Session1" / "dialog" / "EmoEvaluation" / "._Ses01F_impro01.txt").write_bytes(b"\x00\xff")
    write_metadata(corpus, tmp_path / "ours")
    entries = json.loads((tmp_path / "ours/Session3/train_meta_data.json").read_text())["meta_data"]
    order = [name for session in dialogs if session != "Session3" for name in dialogs[session]]
    assert [entry["path"].split("/")[-2] for entry in entries] == order
    (corpus / "Session1" / "dialog" / "EmoEvaluation" / "._Ses01F_impro01.txt").unlink()
    places = {f"{name}.txt": place for names in dialogs.values() for place, name in enumerate(names)}
    preprocess(corpus, order=lambda names: sorted(names, key=lambda name: places.get(name, 0)))
    assert contents(tmp_path / "ours") == contents(corpus / "meta_data")


def test_another_corpus_is_in_alphabetical_order(tmp_path):
    names = [f"Ses01{name}" for name in prepare._ORDER["Session1"].split()][:-1]
    corpus = annotated(tmp_path, {"Session1": names, "Session2": ["Ses02F_impro01"]})
    write_metadata(corpus, corpus / "meta_data")
    entries = json.loads((corpus / "meta_data/Session1/test_meta_data.json").read_text())["meta_data"]
    assert [entry["path"].split("/")[-2] for entry in entries] == sorted(names)


def test_corpora_without_metadata(tmp_path):
    with pytest.raises(DataError, match="must hold IEMOCAP's folders Session1 to Session5, but has 0"):
        write_metadata(tmp_path, tmp_path)
    annotated(tmp_path, {"Session1": ["Ses01F_impro01"], "Session2": []})
    with pytest.raises(DataError, match="Session2 has no utterance: it must hold sentences"):
        write_metadata(tmp_path, tmp_path / "meta_data")
    (tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt").write_text("[0.0 - 1.0] name neu\n")
    with pytest.raises(DataError, match=r"impro01\.txt, line 1: must be"):
        write_metadata(tmp_path, tmp_path / "meta_data")
    assert not (tmp_path / "meta_data").exists()


# What a user can get wrong.


def test_missing_metadata_names_the_command_that_writes_it(iemocap, tmp_path):
    shutil.copytree(iemocap, tmp_path / "copy", ignore=shutil.ignore_patterns("meta_data"))
    with pytest.raises(DataError, match=r"Session1/train_meta_data\.json does not exist.*prepare er ") as caught:
        build(DownstreamExpert, tmp_path / "copy", tmp_path)
    root = Path(str(caught.value).split("prepare er ")[1].split("`")[0])
    prepare.prepare(root)
    assert build(DownstreamExpert, tmp_path / "copy", tmp_path).fold == "fold1"


@pytest.mark.parametrize("fold", FOLDS)
def test_dev_can_be_a_session_of_its_own(iemocap, tmp_path, fold):
    """SUPERB's dev is of all four sessions that are not tested on; the sounder one has speakers of its own."""
    sessions = {}
    for dev_split in ("random", "session"):
        expert = build(DownstreamExpert, iemocap, tmp_path, test_fold=fold, dev_split=dev_split)
        assert expert.protocol == {"accuracy": "pooled", "dev_split": dev_split}
        lists = {split: listed(expert, split) for split in SPLITS}
        assert len(set().union(*lists.values())) == sum(map(len, lists.values())) == 40
        sessions[dev_split] = {
            split: {Path(path).relative_to(iemocap).parts[0] for path in paths} for split, paths in lists.items()
        }
    assert sessions["random"]["dev"] == sessions["random"]["train"]
    following = {
        "fold1": "Session2",
        "fold2": "Session3",
        "fold3": "Session4",
        "fold4": "Session5",
        "fold5": "Session1",
    }
    assert sessions["session"]["test"] == {f"Session{fold[-1]}"}
    assert sessions["session"]["dev"] == {following[fold]}
    assert len(sessions["session"]["train"]) == 3
    assert not sessions["session"]["train"] & {f"Session{fold[-1]}", following[fold]}


def test_superbs_dev_is_the_default(iemocap, tmp_path):
    assert build(DownstreamExpert, iemocap, tmp_path).protocol == {"accuracy": "pooled", "dev_split": "random"}
    with pytest.raises(ConfigError, match="dev_split` must be one of random, session"):
        build(DownstreamExpert, iemocap, tmp_path, dev_split="speaker")


def test_a_missing_wav_is_named(tmp_path):
    corpus = tiny_corpus(tmp_path)
    (corpus / "Session1/sentences/wav/dialog/Session1_2.wav").unlink()
    message = r"Session1_2\.wav cannot be read: it does not exist"
    with pytest.raises(DataError, match=message):
        build(DownstreamExpert, corpus, tmp_path, pre_load=True)
    expert = build(DownstreamExpert, corpus, tmp_path, pre_load=False)
    with pytest.raises(DataError, match=message):
        list(expert.get_dataloader("test"))


@pytest.mark.parametrize("pre_load", [True, False])
def test_a_wav_that_cannot_be_read_is_skipped_and_counted(tmp_path, caplog, pre_load):
    corpus = tiny_corpus(tmp_path)
    (corpus / "Session1/sentences/wav/dialog/Session1_2.wav").write_bytes(b"RIFF")
    expert = build(DownstreamExpert, corpus, tmp_path, pre_load=pre_load, skip_bad_audio=True)
    with caplog.at_level(logging.WARNING):
        run(expert, "test", 1.0, SIZES, step=1)
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if text.startswith("Skipped") and "Session1_2.wav cannot be read" in text]
    assert told[-1] == "test: 1 of 3 utterances were left out."
    names = [line.split()[0] for line in (tmp_path / "test_fold1_truth.txt").read_text().splitlines()]
    assert names == ["Session1_0", "Session1_1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", 'must hold {"labels"'),
        ('{"labels": {}, "meta_data": []}', "number their labels differently"),
        ('{"labels": {"neu": 1}, "meta_data": []}', 'must hold {"labels"'),
        ('{"labels": {"neu": 0}, "meta_data": [{"path": "a.wav"}]}', "entry 1: needs a `path` and a `label` of neu"),
        ('{"labels": {"neu": 0}, "meta_data": [{"path": "a.wav", "label": ["neu"]}]}', "entry 1: needs"),
        ('{"labels": {"neu": 0}, "meta_data": []}', "number their labels differently"),
        (json.dumps({"labels": LABELS, "meta_data": []}), "leaves no utterance for split train"),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path, content, message):
    corpus = tiny_corpus(tmp_path)
    (corpus / "meta_data/Session1/train_meta_data.json").write_text(content)
    with pytest.raises(DataError, match=message):
        build(DownstreamExpert, corpus, tmp_path)


@pytest.mark.parametrize(
    ("datarc", "variant", "message"),
    [
        ({"test_fold": "fold6"}, None, "Unknown fold 'fold6'.*Possible: fold1"),
        ({}, "Session2", "Unknown fold 'Session2'"),
        ({"valid_ration": 0.2}, None, "Did you mean 'valid_ratio'"),
        ({"valid_ratio": 1.5}, None, r"valid_ratio` must be in \(0, 1\)"),
        ({"pre_load": "often"}, None, "pre_load"),
    ],
)
def test_configs_that_cannot_be_used(iemocap, tmp_path, datarc, variant, message):
    with pytest.raises(ConfigError, match=message):
        build(DownstreamExpert, iemocap, tmp_path, variant, **datarc)


def test_the_shipped_config_is_superbs(iemocap, tmp_path):
    config = yaml.safe_load((shipped_configs() / "er.yaml").read_text())
    assert config["runner"] == {
        "total_steps": 30000,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 8,
        "log_step": 500,
        "eval_step": 1000,
        "save_step": 1000,
        "max_keep": 1,
        "eval_dataloaders": ["dev", "test"],
    }
    assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1.0e-4}
    block = config["downstream_expert"]
    block["datarc"].update(root=str(iemocap), meta_data=str(iemocap / "meta_data"))
    # S3PRL's own config states a head that is not used, too.
    block["modelrc"]["DeepModel"] = {"model_type": "CNNSelfAttention", "hidden_dim": 80}
    expert = DownstreamExpert(upstream_dim=4, downstream_expert=block, expdir=str(tmp_path), downstream_variant="fold4")
    assert expert.fold == "fold4"
    assert expert.tag == "emotion-fold4"
    assert expert.loader.train_batch_size == expert.loader.eval_batch_size == 4
    assert expert.projector.out_features == 256
    assert len(expert.datasets["dev"].wavs) == len(expert.datasets["dev"]) > 0


def test_a_run_says_which_fold_it_tested_on(iemocap, tmp_path):
    datarc = "config.downstream_expert.datarc"
    where = f"{datarc}.root={iemocap},,{datarc}.meta_data={iemocap}/meta_data"
    run_task(
        RunArguments(
            mode="train",
            upstream=str(Path(__file__).parents[2] / "scripts/demo_upstream.py") + ":build",
            downstream="emotion",
            downstream_variant="fold2",
            config=["configs/er.yaml", "configs/mini/er.yaml"],
            override=f"{where},,config.runner.total_steps=2",
            expdir=str(tmp_path / "run"),
            device="cpu",
        )
    )
    result = read_result(tmp_path / "run/results.json")
    assert (result.task, result.fold) == ("er", "fold2")
    assert (tmp_path / "run/test_fold2_predict.txt").exists()
