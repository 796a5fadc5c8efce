"""Speaker verification, against S3PRL's own ``sv_voxceleb1`` and by itself."""

import json
import logging
import random
import shutil
import sys
import types
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from numpy.random import RandomState
from torch.testing import assert_close

from downstream_tasks import loading
from downstream_tasks.sv import expert as expert_module
from downstream_tasks.sv import prepare as prepare_module
from downstream_tasks.sv.dataset import find_wavs, load_utterance, name_of, read_trials
from downstream_tasks.sv.effects import load_with_effects
from downstream_tasks.sv.expert import DownstreamExpert
from downstream_tasks.sv.metrics import equal_error_rate, min_dcf
from downstream_tasks.sv.model import (
    MIN_FRAMES,
    SHRINK,
    AMSoftmaxLoss,
    SpeakerModel,
    long_enough,
    pool_counts,
    pool_statistics,
)
from downstream_tasks.sv.prepare import prepare
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner.config import shipped_configs
from s3prl_interfaces.runner.trained import read_audio
from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.parity import Logger

CROP = 36000
WIDTH = 7

# The `downstream_expert` block of S3PRL's configs/amsoftmax.yaml.
S3PRLS_BLOCK = """
datarc:
  vad_config:
    min_sec: 32000
  file_path: /path/to/VoxCeleb1
  train_meta_data: ./downstream/sv_voxceleb1/dev_meta_data/dev_speaker_ids.txt
  dev_meta_data: ./downstream/sv_voxceleb1/dev_meta_data/dev_meta_data.txt
  test_meta_data: ./downstream/sv_voxceleb1/voxceleb1_test_v2.txt
  max_timestep: 128000
  train_batch_size: 10
  eval_batch_size: 1
  num_workers: 8
modelrc:
  module: XVector
  input_dim: 512
  agg_module: SP
  utter_module: UtteranceExtractor
  module_config:
    XVector: {agg_dim: 1500, dropout_p: 0.0, batch_norm: False}
    Identity: {no_args: True}
  ObjectiveLoss: AMSoftmaxLoss
  LossConfig:
    SoftmaxLoss: {no_args: True}
    AMSoftmaxLoss: {s: 30.0, m: 0.4}
    AAMSoftmaxLoss: {s: 15, m: 0.3, easy_margin: False}
"""


def config_of(corpus, data=None, model=None):
    """S3PRL's block with a narrow model and small batches."""
    block = yaml.safe_load(S3PRLS_BLOCK)
    block["datarc"].update(
        file_path=str(corpus),
        dev_meta_data=str(corpus / "dev_meta_data.txt"),
        test_meta_data=str(corpus / "voxceleb1_test_v2.txt"),
        max_timestep=CROP,
        train_batch_size=4,
        num_workers=0,
        **(data or {}),
    )
    block["modelrc"].update(input_dim=12, **(model or {}))
    block["modelrc"]["module_config"]["XVector"]["agg_dim"] = 10
    return block


def build(cls, corpus, expdir, data=None, model=None, **kwargs):
    expdir.mkdir(parents=True, exist_ok=True)
    block = config_of(corpus, data, model)
    return cls(upstream_dim=WIDTH, upstream_rate=320, downstream_expert=block, expdir=str(expdir), **kwargs)


def find_files(root):
    """librosa's: all audio files in alphabetical order."""
    return sorted(str(path) for path in Path(root).rglob("*.wav"))


def apply_effects_file(path, effects):
    """torchaudio's, which left with version 2.9; that ours are sox's is tested in test_sv_effects.py."""
    assert effects == [
        ["channels", "1"],
        ["rate", "16000"],
        ["gain", "-3.0"],
        ["silence", "1", "0.1", "0.1%", "-1", "0.1", "0.1%"],
    ]
    return torch.from_numpy(load_with_effects(Path(path))).unsqueeze(0), 16000


def in_turn(n_jobs):
    """joblib's Parallel, without processes."""
    return lambda calls: [function(*args, **kwargs) for function, args, kwargs in calls]


@pytest.fixture
def s3prl_expert(monkeypatch, tmp_path):
    """S3PRL's module, without a GPU; it imports sox for nothing, and keeps a cache inside its own package (D16)."""
    for name, imported in (("sox", "Transformer"), ("librosa", ""), ("librosa.util", "find_files")):
        if name not in sys.modules:
            module = types.ModuleType(name)
            setattr(module, imported, None)
            monkeypatch.setitem(sys.modules, name, module)
    dataset = import_s3prl("s3prl.downstream.sv_voxceleb1.dataset")
    monkeypatch.setattr(dataset, "find_files", find_files)
    monkeypatch.setattr(dataset, "apply_effects_file", apply_effects_file)
    monkeypatch.setattr(dataset, "__file__", str(tmp_path / "package" / "dataset.py"))
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(dataset, "Parallel", in_turn)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    return import_s3prl("s3prl.downstream.sv_voxceleb1.expert").DownstreamExpert


@pytest.fixture
def both(voxceleb1, tmp_path, s3prl_expert):
    """Our expert and S3PRL's with the same weights."""
    torch.manual_seed(0)
    ours = build(DownstreamExpert, voxceleb1, tmp_path / "ours")
    theirs = build(s3prl_expert, voxceleb1, tmp_path / "theirs")
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.fixture
def ours(voxceleb1, tmp_path):
    torch.manual_seed(0)
    return build(DownstreamExpert, voxceleb1, tmp_path / "ours")


def features_of(name, noise=1.0, frames=None):
    """Features of a speaker under noise, the same each time; 20 to 59 frames."""
    speaker, utterance = int(name[2:7]), int.from_bytes(name.encode(), "big") % 10**9
    own = np.random.default_rng(speaker).normal(size=WIDTH)
    random = np.random.default_rng(utterance)
    frames = frames or int(random.integers(20, 60))
    return torch.tensor(own + noise * random.normal(size=(frames, WIDTH)), dtype=torch.float32)


def evaluate(expert, split, step=1, noise=1.0):
    """One pass over a split as a runner makes it: what is recorded, logged, and to be saved."""
    records, logger = defaultdict(list), Logger()
    with torch.no_grad():
        for batch, (_, files) in enumerate(expert.get_dataloader(split)):
            features = [features_of(name_of(file), noise) for file in files]
            expert(split, features, files, records=records, batch_id=batch)
    saved = expert.log_records(split, records=records, logger=logger, global_step=step, batch_ids=[], total_batch_num=1)
    return records, logger.scalars, saved


def train_step(expert, features, labels):
    """Loss, its log, and all gradients."""
    expert.zero_grad()
    records, logger = defaultdict(list), Logger()
    loss = expert("train", features, ["a"] * len(labels), labels, records=records)
    loss.backward()
    expert.log_records("train", records=records, logger=logger, global_step=5, batch_ids=[], total_batch_num=1)
    return loss.detach(), logger.scalars, {name: value.grad for name, value in expert.named_parameters()}


def write_corpus(root, speakers=("id10001", "id10002"), seconds=2.5, silent=()):
    """Noise in VoxCeleb1's layout: two files of each speaker in dev/ and test/."""
    for top in ("dev", "test"):
        for speaker in speakers:
            for video in ("aaaaaaaaaaa", "bbbbbbbbbbb"):
                folder = root / top / "wav" / speaker / video
                folder.mkdir(parents=True)
                wav = RandomState(len(str(folder))).uniform(-0.5, 0.5, int(16000 * seconds))
                soundfile.write(folder / "00001.wav", 0 * wav if (top, speaker, video) in silent else wav, 16000)
    trials = [
        f"1 {speakers[0]}/aaaaaaaaaaa/00001.wav {speakers[0]}/bbbbbbbbbbb/00001.wav\n",
        f"0 {speakers[0]}/aaaaaaaaaaa/00001.wav {speakers[1]}/bbbbbbbbbbb/00001.wav\n",
    ]
    for name in ("dev_meta_data.txt", "voxceleb1_test_v2.txt"):
        (root / name).write_text("".join(trials))
    return root


# The corpus, as S3PRL reads it


@pytest.mark.parametrize("max_timestep", [CROP, None])
def test_training_utterances_are_s3prls(voxceleb1, tmp_path, s3prl_expert, max_timestep):
    data = {"max_timestep": max_timestep}
    block = config_of(voxceleb1)
    block["datarc"].update(data)
    pair = [
        cls(upstream_dim=WIDTH, downstream_expert=block, expdir=str(tmp_path))
        for cls in (DownstreamExpert, s3prl_expert)
    ]
    ours, theirs = pair[0].datasets["train"], pair[1].train_dataset
    everything = sum(map(len, find_wavs(voxceleb1 / "dev" / "wav").values()))
    assert everything > len(ours) == len(theirs) > 20
    longest = 0
    for index in range(len(ours)):
        items = []
        for dataset in (ours, theirs):
            random.seed(index)
            items.append(dataset[index])
        (wav, name, label), (their_wav, their_name, their_label) = items
        assert np.array_equal(wav, their_wav)
        assert (name, label) == (their_name, their_label)
        longest = max(longest, len(wav))
    assert (longest == CROP) == (max_timestep == CROP)
    assert pair[0].speakers == pair[1].train_dataset.all_speakers


def test_crops_may_end_where_the_utterance_ends(ours, monkeypatch):
    monkeypatch.setattr(random, "randint", lambda low, high: high)
    file = max((file for file, _ in ours.datasets["train"].items), key=lambda file: len(_load(ours, file)))
    index = [name for name, _ in ours.datasets["train"].items].index(file)
    whole = _load(ours, file)
    assert len(whole) > CROP
    assert np.array_equal(ours.datasets["train"][index][0], whole[-CROP:])


def _load(expert, file):
    return load_utterance(expert.datasets["train"].root / file)


def test_training_batches_are_s3prls(both, s3prls_order, monkeypatch):
    monkeypatch.setattr(expert_module, "generator_of", loading.generator_of)
    batches = []
    for expert in both:
        torch.manual_seed(3)
        batches.append([(names, labels) for _, names, labels in expert.get_dataloader("train")])
    assert batches[0] == batches[1]
    assert len(batches[0]) > 5


def test_batches_are_a_function_of_seed_and_epoch(voxceleb1, tmp_path):
    def deal(seed, epoch):
        expert = build(DownstreamExpert, voxceleb1, tmp_path, seed=seed)
        batches = list(expert.get_dataloader("train", epoch=epoch))
        crops = {name: wav.sum() for wavs, names, _ in batches for name, wav in zip(names, wavs, strict=True)}
        return [names for _, names, _ in batches], crops

    order, crops = deal(1, 0)
    assert (order, crops) == deal(1, 0)
    for seed, epoch in ((1, 1), (2, 0)):
        other_order, other_crops = deal(seed, epoch)
        assert other_order != order
        assert other_crops != crops
        assert other_crops.keys() == crops.keys()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_each_file_of_the_trials_is_embedded_once_in_a_fixed_order(ours, voxceleb1, split, s3prl_expert, tmp_path):
    """D17: S3PRL's order is that of a set, another in each process."""
    theirs = build(s3prl_expert, voxceleb1, tmp_path / "theirs")
    files = [file for _, batch in ours.get_dataloader(split) for file in batch]
    wavs = {file: wav for (wav,), (file,) in ours.get_dataloader(split)}
    assert files == sorted(set(files))
    their_wavs = {name: wav for (wav,), (name,) in theirs.get_dataloader(split)}
    root = voxceleb1 / split / "wav"
    assert {str(root / file) for file in files} == set(their_wavs)
    assert all(np.array_equal(wavs[file], their_wavs[str(root / file)]) for file in files)


def test_an_unknown_split(ours):
    with pytest.raises(KeyError):
        ours.get_dataloader("dev-clean")


def test_lengths_are_kept_by_corpus_and_list(tmp_path, s3prl_expert):
    """D16: S3PRL keeps one list of lengths in its package, so a second corpus gets the first one's files."""
    first = write_corpus(tmp_path / "first")
    second = write_corpus(tmp_path / "second", speakers=("id10001", "id10002", "id10003"))
    sizes = [
        [len(build(cls, corpus, tmp_path / "out").get_dataloader("train").dataset) for corpus in (first, second)]
        for cls in (DownstreamExpert, s3prl_expert)
    ]
    assert sizes == [[4, 6], [4, 4]]
    (kept,) = (first / ".s3prl_interfaces").iterdir()
    assert kept.name.startswith("voxceleb1-effects-")
    assert [path.name for path in tmp_path.glob("package/.wav_lengths/*")] == ["Voxceleb1_length.pt"]
    # They are read, not measured again.
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "lengths": [32001, 32000, 40000, 50000]}))
    assert len(build(DownstreamExpert, first, tmp_path / "out").datasets["train"]) == 3


def test_lengths_are_after_the_effects(tmp_path):
    """`min_sec` is in samples, and an utterance must be longer."""
    corpus = write_corpus(tmp_path / "corpus", seconds=2)
    path = corpus / "dev" / "wav" / "id10001" / "aaaaaaaaaaa" / "00001.wav"
    noise = RandomState(0).uniform(-0.5, 0.5, 32001)
    soundfile.write(path, np.concatenate([noise[:20000], np.zeros(8000), noise[20000:]]), 16000)
    length = len(load_with_effects(path))
    assert 32001 < length < 33000
    for min_sec, expected in ((32000, 1), (length - 1, 1), (31999, 4)):
        expert = build(DownstreamExpert, corpus, tmp_path / "out", data={"vad_config": {"min_sec": min_sec}})
        assert len(expert.datasets["train"]) == expected
        assert expert.speakers == ["id10001", "id10002"]
    with pytest.raises(DataError, match=rf"dev/wav has no wav of more than {length} samples"):
        build(DownstreamExpert, corpus, tmp_path / "out", data={"vad_config": {"min_sec": length}})


def test_a_training_file_without_sound_is_too_short(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", silent={("dev", "id10001", "aaaaaaaaaaa")})
    assert len(build(DownstreamExpert, corpus, tmp_path / "out").datasets["train"]) == 3
    assert len(list((corpus / ".s3prl_interfaces").iterdir())) == 1  # measured, so kept


# Model, loss and scores, as S3PRL's


def test_parameters_have_s3prls_names(both):
    shapes = [{name: value.shape for name, value in expert.state_dict().items()} for expert in both]
    assert shapes[0] == shapes[1]
    assert "model.framelevel_feature_extractor.module.4.kernel.weight" in shapes[0]


@pytest.mark.parametrize("frames", [(40, 40, 40), (60, 33, 21, 60), (17, 90), (30,)])
def test_loss_and_gradients_are_s3prls(both, frames):
    torch.manual_seed(0)
    features = [torch.randn(count, WIDTH) for count in frames]
    labels = [index % 3 for index in range(len(frames))]
    (loss, scalars, gradients), (their_loss, their_scalars, their_gradients) = (
        train_step(expert, features, labels) for expert in both
    )
    assert_close(loss, their_loss, atol=1e-5, rtol=1e-5)
    assert loss > 5
    assert scalars == pytest.approx(their_scalars, abs=1e-5)
    assert scalars.keys() == {("sv-voxceleb1/train-loss", 5)}
    assert_close(gradients, their_gradients, atol=1e-5, rtol=1e-4)
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())


def test_exact_pooling_sees_no_padding(both, voxceleb1, tmp_path):
    """D18: S3PRL's statistics of a padded utterance have one frame too many, and so depend on what else is there."""
    exact = build(DownstreamExpert, voxceleb1, tmp_path / "exact", model={"pooling_mask": "exact"})
    exact.load_state_dict(both[0].state_dict())
    torch.manual_seed(0)
    features = [torch.randn(count, WIDTH) for count in (60, 33)]
    losses = {}
    for name, expert in {"superb": both[0], "s3prl": both[1], "exact": exact}.items():
        together = train_step(expert, features, [0, 1])[0]
        alone = torch.stack([train_step(expert, features[i : i + 1], [i])[0] for i in (0, 1)]).mean()
        losses[name] = (together - alone).abs().item()
    assert losses["exact"] < 1e-5
    assert losses["superb"] > 1e-4
    assert losses["s3prl"] == pytest.approx(losses["superb"], abs=1e-5)
    assert both[0].protocol["pooling_mask"] == "superb"
    assert exact.protocol["pooling_mask"] == "exact"


def test_embeddings_do_not_depend_on_the_batch(ours):
    names = ["id10001-a-1", "id10002-b-2", "id10003-c-3"]
    features = [features_of(name) for name in names]
    assert len({len(feature) for feature in features}) == 3
    together = np.stack([answer["embedding"] for answer in ours.eval().predict(features)])
    alone = np.stack([ours.predict([feature])[0]["embedding"] for feature in features])
    assert np.allclose(together, alone, atol=1e-6)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.dtype == np.float32


def test_model_is_the_formula(ours):
    """Statistics pooling and the TDNN's windows, as plain sums."""
    torch.manual_seed(1)
    frames = torch.randn(2, 9, 4)
    pooled = pool_statistics(frames, [9, 5])
    rows = frames[1, :5]
    mean = rows.sum(0) / 5
    assert_close(pooled[1], torch.cat([mean, (((rows - mean) ** 2).sum(0) / 4).sqrt()]))
    tdnn = ours.model.framelevel_feature_extractor.module[1]  # three frames, two apart
    x = torch.randn(1, 10, 12)
    expected = torch.relu(tdnn.kernel(torch.cat([x[0, 3], x[0, 5], x[0, 7]])))
    assert tdnn(x).shape == (1, 6, 12)
    assert_close(tdnn(x)[0, 3], expected)
    assert ours.model.framelevel_feature_extractor(torch.randn(1, 30, 12)).shape == (1, 30 - SHRINK, 10)


def test_pool_counts():
    assert pool_counts([30, 20, 30], with_padded_frame=True) == [16, 7, 16]
    assert pool_counts([30, 20, 30], with_padded_frame=False) == [16, 6, 16]


def test_dropout_is_for_training_alone(ours):
    model = SpeakerModel(input_dim=12, agg_dim=10, dropout_p=0.5)
    features = torch.randn(1, 40, 12)
    assert not torch.equal(model(features, [26]), model(features, [26]))
    model.eval()
    assert torch.equal(model(features, [26]), model(features, [26]))


def test_the_gradient_of_a_unit_that_never_changes_is_no_nan(ours):
    _, _, gradients = train_step(ours, [torch.ones(30, WIDTH), torch.ones(25, WIDTH)], [0, 1])
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.filterwarnings("ignore:std")  # S3PRL's, of one frame
@pytest.mark.parametrize("frames", [0, 1, 13, 14, 15])
def test_utterances_shorter_than_the_tdnns_reach(both, frames):
    """S3PRL fails under 15 frames, and makes NaN of 15."""
    feature = torch.randn(frames, WIDTH)
    try:
        records = {}
        both[1]("test", [feature], ["a"], records=records)
        assert torch.isnan(records["a"]).all()
    except (RuntimeError, IndexError):
        assert frames < 15
    extended = long_enough(feature)
    assert len(extended) == MIN_FRAMES
    if frames:
        assert torch.equal(extended[:frames], feature)
        assert torch.equal(extended[frames:], feature[-1:].expand(MIN_FRAMES - frames, -1))
    assert np.isfinite(both[0].predict([feature])[0]["embedding"]).all()
    loss, _, gradients = train_step(both[0], [feature, torch.randn(40, WIDTH)], [0, 1])
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert long_enough(extended) is extended


def test_scores_and_eer_are_s3prls(both):
    results = []
    for expert in both:
        _, scalars, saved = evaluate(expert, "test", noise=3.0)
        lines = [line.split() for line in (Path(expert.expdir) / "test_predict.txt").read_text().splitlines()]
        results.append((scalars["sv-voxceleb1/test-EER", 1], dict(lines), [pair for pair, _ in lines], saved))
    (eer, scores, pairs, saved), (their_eer, their_scores, their_pairs, their_saved) = results
    assert eer == pytest.approx(their_eer, abs=1e-6)
    assert 0.01 < eer < 0.49
    assert pairs == their_pairs
    assert {pair: float(score) for pair, score in scores.items()} == pytest.approx(
        {pair: float(score) for pair, score in their_scores.items()}, abs=1e-6
    )
    assert all(pair.count("_") >= 1 and "/" not in pair and ".wav" not in pair for pair in pairs)
    assert saved == ["test-best.ckpt"]
    assert their_saved == []


def test_the_truth_is_written(both, voxceleb1):
    """D22: S3PRL's is empty."""
    for expert in both:
        evaluate(expert, "test")
    assert (Path(both[1].expdir) / "test_truth.txt").read_text() == ""
    truth = [line.split() for line in (both[0].expdir / "test_truth.txt").read_text().splitlines()]
    trials = [line.split() for line in (voxceleb1 / "voxceleb1_test_v2.txt").read_text().splitlines()]
    assert [label for _, label in truth] == [label for label, *_ in trials]
    assert [pair for pair, _ in truth] == [f"{name_of(a)}_{name_of(b)}" for _, a, b in trials]


def test_dev_trials_are_scored_on_dev(both, voxceleb1):
    """D17: S3PRL looks the test trials up among the embeddings of dev."""
    with pytest.raises(TypeError):
        evaluate(both[1], "dev")
    evaluate(both[0], "dev")
    lines = (both[0].expdir / "dev_predict.txt").read_text().splitlines()
    trials = read_trials(voxceleb1 / "dev_meta_data.txt", "key")
    assert [line.split()[0] for line in lines] == [trial.name for trial in trials]


def test_loss_is_the_papers_formula():
    torch.manual_seed(0)
    loss = AMSoftmaxLoss(hidden_dim=5, speaker_num=4, s=30.0, m=0.4)
    vectors, labels = torch.randn(3, 5), torch.tensor([2, 0, 3])
    total = 0.0
    for vector, label in zip(vectors, labels, strict=True):
        cosines = [(vector @ column / vector.norm() / column.norm()).item() for column in loss.W.detach().T]
        right = np.exp(30 * (cosines[label] - 0.4))
        wrong = sum(np.exp(30 * cosine) for j, cosine in enumerate(cosines) if j != label)
        total -= np.log(right / (right + wrong))
    assert loss(vectors, labels).item() == pytest.approx(total / 3, rel=1e-5)


# Metrics


@pytest.mark.parametrize("decimals", [8, 2, 1])
@pytest.mark.parametrize("seed", range(10))
def test_eer_is_s3prls(seed, decimals, s3prl_expert):
    """With random scores, and with many of the same."""
    reference = import_s3prl("s3prl.downstream.sv_voxceleb1.utils").EER
    random = RandomState(seed)
    targets = random.rand(random.randint(5, 300)) < 0.4
    targets[:2] = [True, False]
    scores = np.round(random.randn(len(targets)) + seed / 5 * targets, decimals).astype(np.float32)
    expected, _ = reference(targets.astype(int), scores)
    assert equal_error_rate(targets, scores) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("targets", "scores", "eer"),
    [
        ([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], 0.0),
        ([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1], 1.0),
        ([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5], 0.5),
        ([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], 0.5),
        ([1, 1, 0, 1, 0, 0], [6, 5, 4, 3, 2, 1], 1 / 3),
    ],
)
def test_eer_of_plain_cases(targets, scores, eer):
    assert equal_error_rate(np.array(targets, dtype=bool), np.array(scores)) == pytest.approx(eer, abs=1e-12)


@pytest.mark.parametrize("p_target", [0.01, 0.5, 0.9])
def test_min_dcf_is_the_least_cost_of_all_thresholds(p_target):
    random = RandomState(0)
    targets = random.rand(200) < 0.3
    scores = np.round(random.randn(200) + 2 * targets, 1)
    costs = []
    for threshold in [*np.unique(scores), np.inf]:
        accepted = scores >= threshold
        misses = (~accepted[targets]).mean()
        false_accepts = accepted[~targets].mean()
        costs.append(p_target * misses + (1 - p_target) * false_accepts)
    assert min_dcf(targets, scores, p_target) == pytest.approx(min(costs) / min(p_target, 1 - p_target), rel=1e-12)
    assert min_dcf(targets, -0.0 * scores, p_target) == 1.0


def test_min_dcf_is_logged(ours):
    _, scalars, _ = evaluate(ours, "test", noise=3.0)
    lines = (ours.expdir / "test_predict.txt").read_text().splitlines()
    targets = np.array([trial.target for trial in ours.trials["test"]])
    scores = np.array([float(line.split()[1]) for line in lines])
    assert scalars["sv-voxceleb1/test-minDCF", 1] == pytest.approx(min_dcf(targets, scores, 0.01), rel=1e-6)


# Which weights are scored


def test_the_lowest_test_eer_is_kept(ours):
    """SUPERB's rule; a tie does not replace the first."""
    assert ours.selects_on == "test"
    decisions = [evaluate(ours, "test", step, noise)[2] for step, noise in enumerate((9.0, 3.0, 3.0, 9.0))]
    assert decisions == [["test-best.ckpt"], ["test-best.ckpt"], [], []]
    assert evaluate(ours, "dev", noise=0.1)[2] == []


def test_dev_chooses_if_told_so(voxceleb1, tmp_path):
    expert = build(DownstreamExpert, voxceleb1, tmp_path, data={"checkpoint_rule": "dev"})
    assert expert.selects_on == "dev"
    assert expert.protocol["checkpoint_rule"] == "dev"
    assert evaluate(expert, "test", noise=0.1)[2] == []
    assert evaluate(expert, "dev", noise=3.0)[2] == ["dev-best.ckpt"]
    assert evaluate(expert, "dev", noise=3.0)[2] == []


def test_dev_speakers_can_be_held_out(ours, voxceleb1, tmp_path):
    """D17: in S3PRL, and so in SUPERB, dev speakers are trained on."""
    expert = build(DownstreamExpert, voxceleb1, tmp_path, data={"hold_out_dev_speakers": True})
    verified = {file.split("/")[0] for file in expert.datasets["dev"].files}
    assert len(verified) == 2
    assert verified < set(ours.speakers)
    assert set(expert.speakers) == set(ours.speakers) - verified
    assert expert.objective.W.shape[1] == len(expert.speakers) == ours.objective.W.shape[1] - 2
    items = expert.datasets["train"].items
    assert {file.split("/")[2] for file, _ in items} == set(expert.speakers)
    assert all(expert.speakers[label] == file.split("/")[2] for file, label in items)
    assert expert.protocol["hold_out_dev_speakers"] is True
    assert ours.protocol == {
        "checkpoint_rule": "best_of_test",
        "hold_out_dev_speakers": False,
        "pooling_mask": "superb",
        "silence": "removed",
    }


def test_holding_out_everybody(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    with pytest.raises(DataError, match=r"dev_meta_data\.txt names every speaker"):
        build(DownstreamExpert, corpus, tmp_path, data={"hold_out_dev_speakers": True})


@pytest.mark.parametrize("data", [{"checkpoint_rule": "dev"}, {"hold_out_dev_speakers": True}])
def test_dev_needs_trials(voxceleb1, tmp_path, data):
    block = config_of(voxceleb1, data)
    del block["datarc"]["dev_meta_data"]
    with pytest.raises(ConfigError, match="dev_meta_data` is missing"):
        DownstreamExpert(upstream_dim=WIDTH, downstream_expert=block, expdir=str(tmp_path))


def test_without_dev_trials_there_is_no_dev(voxceleb1, tmp_path):
    block = config_of(voxceleb1)
    del block["datarc"]["dev_meta_data"]
    expert = DownstreamExpert(upstream_dim=WIDTH, downstream_expert=block, expdir=str(tmp_path))
    with pytest.raises(KeyError):
        expert.get_dataloader("dev")
    assert len(expert.get_dataloader("test")) > 1


@pytest.mark.parametrize(
    ("splits", "rule", "told"),
    [([], "best_of_test", True), (["test"], "best_of_test", False), (["test"], "dev", True), (["dev"], "dev", False)],
)
def test_a_split_that_chooses_must_be_evaluated(voxceleb1, tmp_path, caplog, splits, rule, told):
    runner = {"eval_dataloaders": splits}
    with caplog.at_level(logging.WARNING):
        build(DownstreamExpert, voxceleb1, tmp_path, data={"checkpoint_rule": rule}, runner=runner, mode="train")
        assert ("the weights of the last step will be scored" in caplog.text) == told
        caplog.clear()
        build(DownstreamExpert, voxceleb1, tmp_path, data={"checkpoint_rule": rule}, runner=runner, mode="evaluate")
        assert not caplog.text


# Input that is not as it should be


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 id1/a/1.wav id1/b/1.wav\n", r"trials\.txt, line 1: must be `<0\|1> <speaker>"),
        ("\n1 id1/a/1.wav\n", r"trials\.txt, line 2: must be"),
        ("1 id1/a/1.wav 1.wav\n", r"line 1: must be"),
        ("1 id1/a/1.wav id1/b/1.wav\n", r"must have trials of one speaker \(1\) and of two \(0\)"),
        ("", r"must have trials of one speaker"),
        (None, r"trials\.txt cannot be read .*`the.key` must be a list of trials; `s3prl-interfaces prepare sv DIR`"),
    ],
)
def test_trials_that_cannot_be_used(tmp_path, text, message):
    if text is not None:
        (tmp_path / "trials.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_trials(tmp_path / "trials.txt", "the.key")


def test_what_is_missing_is_named(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    shutil.rmtree(corpus / "test" / "wav" / "id10001" / "aaaaaaaaaaa")
    with pytest.raises(DataError, match=r"id10001/aaaaaaaaaaa/00001\.wav does not exist \(voxceleb1_test_v2\.txt"):
        build(DownstreamExpert, corpus, tmp_path)
    with pytest.raises(DataError, match=r"dev/wav cannot be read \(No such file.*file_path"):
        find_wavs(tmp_path / "dev" / "wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no folders of speakers"):
        find_wavs(tmp_path / "empty")


def test_what_macos_leaves_is_no_wav(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    folder = corpus / "dev" / "wav" / "id10001" / "aaaaaaaaaaa"
    (folder / "._00001.wav").write_bytes(b"junk")
    (folder / "notes.txt").write_text("junk")
    (corpus / "dev" / "wav" / ".DS_Store").write_bytes(b"junk")
    (corpus / "dev" / "wav" / "._id10001").mkdir()
    assert list(find_wavs(corpus / "dev" / "wav")) == ["id10001", "id10002"]
    assert find_wavs(corpus / "dev" / "wav")["id10001"] == [f"id10001/{video * 11}/00001.wav" for video in "ab"]


def test_a_corrupt_training_file(tmp_path, caplog):
    corpus = write_corpus(tmp_path / "corpus")
    bad = corpus / "dev" / "wav" / "id10001" / "aaaaaaaaaaa" / "00001.wav"
    bad.write_bytes(b"not audio")
    block = {"dev_meta_data": None}
    with pytest.raises(DataError, match=r"id10001/aaaaaaaaaaa/00001\.wav cannot be read"):
        build_without_dev(corpus, tmp_path, block)
    expert = build_without_dev(corpus, tmp_path, {"skip_bad_audio": True})
    assert len(expert.datasets["train"]) == 3
    assert "Skipped, as `skip_bad_audio` says" in caplog.text


def build_without_dev(corpus, expdir, data):
    config = config_of(corpus)
    config["datarc"].update({"dev_meta_data": None, **data})
    return DownstreamExpert(upstream_dim=WIDTH, downstream_expert=config, expdir=str(expdir))


@pytest.mark.parametrize("kind", ["corrupt", "silent", "missing", "short"])
def test_a_bad_file_in_the_trials(tmp_path, caplog, kind):
    corpus = write_corpus(tmp_path / "corpus", speakers=("id10001", "id10002", "id10003"))
    trials = corpus / "voxceleb1_test_v2.txt"
    trials.write_text(trials.read_text() + "1 id10003/aaaaaaaaaaa/00001.wav id10003/bbbbbbbbbbb/00001.wav\n")
    bad = corpus / "test" / "wav" / "id10003" / "bbbbbbbbbbb" / "00001.wav"
    if kind == "corrupt":
        bad.write_bytes(b"not audio")
    elif kind == "missing":
        bad.unlink()
    else:
        soundfile.write(bad, np.zeros({"silent": 40000, "short": 399}[kind]), 16000)
    messages = {
        "corrupt": r"cannot be read",
        "missing": r"does not exist",
        "silent": r"has 0 samples after its silence is removed, less than one frame",
        "short": r"has 399 samples at 16000 Hz, less than one frame",
    }
    with pytest.raises(DataError, match=r"id10003/bbbbbbbbbbb/00001\.wav.*" + messages[kind]):
        list(build(DownstreamExpert, corpus, tmp_path).get_dataloader("test"))
    expert = build(DownstreamExpert, corpus, tmp_path, data={"skip_bad_audio": True})
    records, logger = defaultdict(list), Logger()
    for wavs, *others in expert.get_dataloader("test"):
        if wavs:
            expert("test", [features_of(name_of(file)) for file in others[0]], others[0], records=records)
    assert len(records["name"]) == 4
    expert.log_records("test", records=records, logger=logger, global_step=1)
    assert len((tmp_path / "test_predict.txt").read_text().splitlines()) == 2
    assert "test: 1 of 5 utterances were left out" in caplog.text
    assert "test: 1 of 3 trials were left out" in caplog.text


def test_too_few_trials_left(ours):
    records = defaultdict(list, name=["id10003/x/00001.wav"], embedding=[torch.ones(12)])
    with pytest.raises(DataError, match=r"Split test has no EER: of its trials, too few could be scored \(0\)"):
        ours.log_records("test", records=records, logger=Logger(), global_step=1)


def test_another_rate_and_two_channels(tmp_path):
    noise = RandomState(0).uniform(-0.3, 0.3, 24000)
    soundfile.write(tmp_path / "8k.wav", noise[:8000], 8000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([noise, 0 * noise], axis=1), 16000)
    soundfile.write(tmp_path / "mono.wav", noise / 2, 16000)
    assert abs(len(load_utterance(tmp_path / "8k.wav")) - 16000) < 20
    assert np.allclose(load_utterance(tmp_path / "stereo.wav"), load_utterance(tmp_path / "mono.wav"), atol=1e-4)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("datarc", "max_timesteps"), 1, "Did you mean 'max_timestep'"),
        (("datarc", "vad_config", "min_secs"), 1, "Did you mean 'min_sec'"),
        (("datarc", "checkpoint_rule"), "test", "must be one of best_of_test, dev"),
        (("modelrc", "module"), "Identity", "`downstream_expert.modelrc.module` must be one of XVector"),
        (("modelrc", "agg_module"), "ASP", "agg_module` must be one of SP"),
        (("modelrc", "utter_module"), "UtteranceIdentity", "must be one of UtteranceExtractor"),
        (("modelrc", "ObjectiveLoss"), "AAMSoftmaxLoss", "must be one of AMSoftmaxLoss"),
        (("modelrc", "module_config", "XVector", "batch_norm"), True, "batch_norm` must be one of False"),
        (("modelrc", "pooling_mask"), "right", "must be one of superb, exact"),
    ],
)
def test_settings_that_are_not_there(voxceleb1, tmp_path, place, value, message):
    block = config_of(voxceleb1)
    inner = block
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ConfigError, match=message):
        DownstreamExpert(upstream_dim=WIDTH, downstream_expert=block, expdir=str(tmp_path))


# Use without a corpus


def test_a_head_is_rebuilt_without_its_corpus(ours, tmp_path):
    again = build(DownstreamExpert, tmp_path / "nowhere", tmp_path / "again", label_state=ours.label_state())
    again.load_state_dict(ours.state_dict())
    feature = features_of("id10001-a-1")
    assert np.array_equal(again.predict([feature])[0]["embedding"], ours.predict([feature])[0]["embedding"])
    with pytest.raises(KeyError):
        again.get_dataloader("test")


def test_inference_writes_embeddings(ours):
    ours.eval()
    names = ["one", "one-2", "one"]
    features = [features_of(f"id1000{index}-a-1") for index in range(3)]
    answers = []
    with torch.no_grad():
        for name, feature in zip(names, features, strict=True):  # one call for each file, as the runner
            answers += ours.inference([feature], [name])
        expected = [answer["embedding"] for answer in ours.predict(features)]
    folder = ours.expdir / "embeddings"
    assert [answer["embedding"] for answer in answers] == [
        str(folder / f"{name}.npy") for name in ("one", "one-2", "one-3")
    ]
    for answer, embedding in zip(answers, expected, strict=True):
        found = np.load(answer["embedding"])
        assert found.dtype == np.float32
        assert found.shape == (12,)
        assert np.allclose(found, embedding, atol=1e-6)
    lines = (ours.expdir / "inference.txt").read_text().splitlines()
    assert lines == ["one embeddings/one.npy", "one-2 embeddings/one-2.npy", "one embeddings/one-3.npy"]


def test_files_of_no_corpus_get_the_effects_too(ours, voxceleb1):
    path = next(voxceleb1.glob("test/wav/*/*/*.wav"))
    wav, _ = soundfile.read(path, dtype="float32")
    assert np.array_equal(ours.transform(wav), load_with_effects(path))
    assert np.array_equal(read_audio(ours, path), load_with_effects(path))
    with pytest.raises(DataError, match="An utterance has 0 samples after its silence is removed"):
        ours.transform(0 * wav)


@pytest.mark.parametrize("silence", ["kept", "removed"])
def test_silence_is_kept_on_request(tmp_path, silence):
    """In training, in trials and in files of no corpus; the least length is then the file's own."""
    corpus = write_corpus(tmp_path / "corpus", seconds=3)
    file = "id10001/aaaaaaaaaaa/00001.wav"
    noise = RandomState(0).uniform(-0.5, 0.5, 32001).astype(np.float32)
    wav = np.concatenate([noise[:20000], np.zeros(8000, dtype=np.float32), noise[20000:]])
    for top in ("dev", "test"):
        soundfile.write(corpus / top / "wav" / file, wav, 16000, subtype="FLOAT")
    data = {"silence": silence, "vad_config": {"min_sec": 39999}}
    expert = build(DownstreamExpert, corpus, tmp_path / "out", data=data)
    expert.datasets["train"].max_timestep = None
    assert expert.protocol["silence"] == silence
    trained = dict(zip((name for name, _ in expert.datasets["train"].items), expert.datasets["train"], strict=True))
    tested = {name: found for found, name in expert.datasets["test"]}
    if silence == "kept":
        kept = wav * np.float32(10 ** (-3 / 20))
        for found in (trained[f"dev/wav/{file}"][0], tested[file], expert.transform(wav)):
            assert np.allclose(found, kept, atol=1e-7)
    else:
        assert f"dev/wav/{file}" not in trained
        assert len(tested[file]) == len(expert.transform(wav)) < 33000
    assert len(trained) == (4 if silence == "kept" else 3)


# Configs


def test_s3prls_block_builds(voxceleb1, tmp_path):
    block = yaml.safe_load(S3PRLS_BLOCK)
    block["datarc"].update(
        file_path=str(voxceleb1),
        dev_meta_data=str(voxceleb1 / "dev_meta_data.txt"),
        test_meta_data=str(voxceleb1 / "voxceleb1_test_v2.txt"),
    )
    expert = DownstreamExpert(upstream_dim=WIDTH, downstream_expert=block, expdir=str(tmp_path))
    assert sum(parameter.numel() for parameter in expert.model.parameters()) == pytest.approx(5.72e6, rel=0.002)
    assert isinstance(expert.model, SpeakerModel)
    assert (expert.objective.s, expert.objective.m) == (30.0, 0.4)


def test_the_shipped_config_is_superbs(voxceleb1, tmp_path):
    config = yaml.safe_load((shipped_configs() / "sv.yaml").read_text())
    assert config["runner"] == {
        "total_steps": 200000,
        "gradient_clipping": 1000,
        "gradient_accumulate_steps": 5,
        "log_step": 500,
        "eval_step": 20000,
        "save_step": 10000,
        "max_keep": 20,
        "eval_dataloaders": ["test"],
    }
    assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "AdamW", "lr": 1.0e-4}
    s3prls, block = yaml.safe_load(S3PRLS_BLOCK), config["downstream_expert"]
    paths = ("file_path", "dev_meta_data", "test_meta_data", "train_meta_data")
    for key, value in s3prls["datarc"].items():
        assert key in paths or block["datarc"][key] == value
    for key in ("module", "input_dim", "agg_module", "utter_module", "ObjectiveLoss"):
        assert block["modelrc"][key] == s3prls["modelrc"][key]
    assert block["modelrc"]["module_config"]["XVector"] == s3prls["modelrc"]["module_config"]["XVector"]
    assert block["modelrc"]["LossConfig"]["AMSoftmaxLoss"] == s3prls["modelrc"]["LossConfig"]["AMSoftmaxLoss"]
    block["datarc"].update(
        file_path=str(voxceleb1),
        dev_meta_data=str(voxceleb1 / "dev_meta_data.txt"),
        test_meta_data=str(voxceleb1 / "voxceleb1_test_v2.txt"),
    )
    expert = DownstreamExpert(
        upstream_dim=WIDTH, downstream_expert=block, expdir=str(tmp_path), runner=config["runner"]
    )
    assert expert.protocol == {
        "checkpoint_rule": "best_of_test",
        "hold_out_dev_speakers": False,
        "pooling_mask": "superb",
        "silence": "removed",
    }
    assert expert.datasets["train"].max_timestep == 128000
    defaults = DownstreamExpert(
        upstream_dim=WIDTH,
        downstream_expert={"datarc": {key: block["datarc"][key] for key in ("file_path", "test_meta_data")}},
        expdir=str(tmp_path),
    )
    assert defaults.protocol == expert.protocol
    assert {name: value.shape for name, value in defaults.state_dict().items()} == {
        name: value.shape for name, value in expert.state_dict().items()
    }
    assert defaults.loader.train_batch_size == 10


# Preparation


def test_prepare_a_whole_corpus(voxceleb1):
    before = sorted(path for path in voxceleb1.iterdir() if not path.name.startswith("."))
    lines = prepare(voxceleb1)
    assert lines[0] == "dev/wav: 60 wavs of 4 speakers"
    assert lines[1] == "test/wav: 30 wavs of 2 speakers"
    assert lines[2] == "voxceleb1_test_v2.txt: 60 trials, 30 of them of one speaker, over 30 wavs"
    assert lines[3] == "dev_meta_data.txt: 60 trials, 30 of them of one speaker, over 30 wavs"
    assert f"file_path to {voxceleb1}" in lines[4]
    assert sorted(path for path in voxceleb1.iterdir() if not path.name.startswith(".")) == before


def test_prepare_writes_dev_trials_that_s3prl_reads(voxceleb1, tmp_path, monkeypatch, s3prl_expert):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("dev", "test", "voxceleb1_test_v2.txt"):
        (corpus / name).symlink_to(voxceleb1 / name)
    monkeypatch.setattr(prepare_module, "_TRIALS", 400)
    monkeypatch.setattr(prepare_module, "_SPEAKERS", 3)
    lines = prepare(corpus)
    assert lines[3].startswith("dev_meta_data.txt: 400 trials written; not S3PRL's own list")
    text = (corpus / "dev_meta_data.txt").read_text()
    trials = read_trials(corpus / "dev_meta_data.txt", "key")
    assert sum(trial.target for trial in trials) == 200
    speakers = [(trial.target, trial.first.split("/")[0], trial.second.split("/")[0]) for trial in trials]
    assert all(target == (first == second) for target, first, second in speakers)
    assert all(trial.first != trial.second for trial in trials)
    assert len({speaker for _, *pair in speakers for speaker in pair}) == 3
    theirs = build(s3prl_expert, corpus, tmp_path / "theirs")
    assert theirs.dev_dataset.pair_table[0][1] == str(corpus / "dev" / "wav" / trials[0].first)
    (corpus / "dev_meta_data.txt").unlink()
    prepare(corpus)
    assert (corpus / "dev_meta_data.txt").read_text() == text
    assert not list(corpus.glob(".*partial"))
    assert len(prepare(corpus)) == 5


def test_prepare_names_all_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"in dev/wav.*in test/wav.*no voxceleb1_test_v2\.txt \(37720 .*S3PRL's repos"):
        prepare(tmp_path / "nowhere")
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "dev_meta_data.txt").unlink()
    shutil.rmtree(corpus / "dev" / "wav" / "id10002" / "aaaaaaaaaaa")
    shutil.rmtree(corpus / "dev" / "wav" / "id10002" / "bbbbbbbbbbb")
    (corpus / "test" / "wav" / "id10002" / "bbbbbbbbbbb" / "00001.wav").unlink()
    with pytest.raises(
        DataError,
        match=r"no wav in dev/wav/id10002; no test/wav/id10002/bbbbbbbbbbb/00001\.wav, which voxceleb1_test_v2\.txt",
    ):
        prepare(corpus)
    assert not (corpus / "dev_meta_data.txt").exists()
    (corpus / "voxceleb1_test_v2.txt").write_text("junk\n")
    with pytest.raises(DataError, match=r"voxceleb1_test_v2\.txt, line 1: must be"):
        prepare(corpus)


def test_prepare_without_two_speakers(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "dev_meta_data.txt").unlink()
    for speaker in ("id10001", "id10002"):
        shutil.rmtree(corpus / "dev" / "wav" / speaker / "bbbbbbbbbbb")
    with pytest.raises(DataError, match="needs two speakers in dev/wav with two wavs or more"):
        prepare(corpus)


def test_prepare_where_nothing_can_be_written(tmp_path, monkeypatch):
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "dev_meta_data.txt").unlink()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DataError, match=r"dev_meta_data\.txt cannot be written: disk full"):
        prepare(corpus)
    assert not list(corpus.glob("*dev_meta*"))
    assert not list(corpus.glob(".*partial"))
