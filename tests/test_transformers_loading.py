"""Loading speech encoders of transformers: what is taken from their files, and what can be wrong with them."""

import json
import logging
import shutil
import warnings
from fnmatch import fnmatch
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
import transformers as hf
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from s3prl_interfaces.errors import UpstreamError
from s3prl_interfaces.upstream import SHIPPED, load_upstream
from tests import upstream_checkpoints
from tests.transformers_models import (
    FAMILIES,
    LARGE,
    SIZES,
    WHISPER,
    WIDTH,
    load,
    states_of,
    utterances,
    write,
    write_whisper,
)


@pytest.fixture
def copied(transformers_folder, tmp_path):
    """A family's folder to spoil."""
    return lambda family: Path(shutil.copytree(transformers_folder(family), tmp_path / family))


# what a task's checkpoint holds beside the encoder must not keep it from being found
TASKS = {
    "HubertForCTC": (lambda: hf.HubertForCTC(hf.HubertConfig(**LARGE, vocab_size=8)), "hubert_large"),
    "Wav2Vec2ForPreTraining": (
        lambda: hf.Wav2Vec2ForPreTraining(hf.Wav2Vec2Config(**LARGE, codevector_dim=16, proj_codevector_dim=16)),
        "wav2vec2_large",
    ),
    "WavLMForXVector": (lambda: hf.WavLMForXVector(hf.WavLMConfig(**LARGE)), "wavlm_large"),
    "Wav2Vec2BertForCTC": (lambda: hf.Wav2Vec2BertForCTC(hf.Wav2Vec2BertConfig(**SIZES, vocab_size=8)), "w2v_bert"),
    "WhisperForConditionalGeneration": (
        lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(**WHISPER)),
        "whisper",
    ),
    "WhisperForAudioClassification": (
        lambda: hf.WhisperForAudioClassification(hf.WhisperConfig(**WHISPER)),
        "whisper",
    ),
}


def encoder_of(model):
    whole = getattr(model, model.base_model_prefix, model)
    return whole.encoder if isinstance(model.config, hf.WhisperConfig) else whole


def assert_same_weights(upstream, model):
    """Every weight of the file is in the upstream, and no other."""
    expected = dict(encoder_of(model).named_parameters())
    expected.pop("masked_spec_embed", None)  # masking is off
    loaded = dict(upstream.model.named_parameters())
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name].float()) for name in loaded)
    assert {parameter.dtype for parameter in loaded.values()} == {torch.float32}
    assert all(name.startswith("model.") for name in upstream.state_dict())  # what a fine-tuned run's checkpoint holds


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_checkpoint_gives_its_encoder(task, tmp_path):
    make, family = TASKS[task]
    torch.manual_seed(5)
    model = make()
    model.save_pretrained(tmp_path)
    FAMILIES[family][1]().save_pretrained(tmp_path)
    upstream = load(tmp_path)
    assert_same_weights(upstream, model)
    assert states_of(upstream, utterances(8000))[0].size(-1) == WIDTH


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["hubert_large", "whisper"])
def test_weights_become_float32(family, dtype, tmp_path):
    model = write(family, tmp_path, dtype)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    upstream = load(tmp_path)
    assert_same_weights(upstream, model)
    assert {state.dtype for state in states_of(upstream, utterances(8000))} == {torch.float32}


def test_weights_in_an_older_file(copied, tmp_path):
    """As most models of the Hub have them: pickled, with the names of PyTorch's older weight norm."""
    folder = copied("hubert_base")
    model = hf.HubertModel.from_pretrained(folder)
    weights = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): weight
        for name, weight in model.state_dict().items()
    }
    assert sum(name.endswith(("weight_g", "weight_v")) for name in weights) == 2
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert_same_weights(load(folder), model)
    upstream_checkpoints.malicious(folder / "pytorch_model.bin", tmp_path / "executed")
    with pytest.raises(UpstreamError, match=r"weights in .*hubert_base.*which may run code"):
        load(folder)
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def chatty():
    """transformers as it is by default, and afterwards as it was."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_warning()
    transformers_logging.enable_progress_bar()
    yield transformers_logging
    transformers_logging.set_verbosity(verbosity)
    if not bars:
        transformers_logging.disable_progress_bar()


def test_loading_is_quiet_and_leaves_no_trace(copied, capfd, caplog, chatty, monkeypatch):
    folder = copied("wavlm_base")
    weights = load_file(folder / "model.safetensors")  # of what is left over, transformers prints a table
    save_file({**weights, "lm_head.weight": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})
    read = hf.AutoConfig.from_pretrained

    def warn(*args, **options):
        warnings.warn("what the family does is deprecated", FutureWarning, stacklevel=1)
        return read(*args, **options)

    monkeypatch.setattr(hf.AutoConfig, "from_pretrained", warn)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        states_of(load(folder), utterances(9600, 4321))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert chatty.get_verbosity() == logging.WARNING
    assert chatty.is_progress_bar_enabled()


def spoil_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_no_model_is_named(copied, tmp_path):
    for missing in (tmp_path / "nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(UpstreamError, match=rf"^Upstream 'hf:{missing}': There is no folder"):
            load(missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UpstreamError, match=r"empty has no config\.json.*save_pretrained"):
        load(tmp_path / "empty")
    with pytest.raises(UpstreamError, match="hf:FOLDER_OR_ID"):
        load("")
    folder = copied("hubert_base")
    spoil_config(folder, model_type="of_tomorrow", auto_map={"AutoConfig": "mine.Config"})
    proof = tmp_path / "executed"
    (folder / "mine.py").write_text(f"open({str(proof)!r}, 'w')")
    with pytest.raises(
        UpstreamError, match=r"config\.json is of no model that the installed transformers knows.*not run"
    ):
        load(folder)
    assert not proof.exists()
    (folder / "config.json").write_text("{")
    with pytest.raises(UpstreamError, match=r"config\.json is of no model"):
        load(folder)


def test_what_hears_nothing_is_named(tmp_path):
    others = {
        "bert": hf.BertModel(hf.BertConfig(**SIZES, vocab_size=20)),
        "vit": hf.ViTModel(hf.ViTConfig(**SIZES, image_size=32)),
        "speech_to_text": hf.Speech2TextModel(
            hf.Speech2TextConfig(**{key: value for key, value in WHISPER.items() if key != "encoder_layerdrop"})
        ),
    }
    for kind, model in others.items():
        model.save_pretrained(tmp_path / kind)
        wav2vec2 = hf.Wav2Vec2FeatureExtractor()
        wav2vec2.save_pretrained(tmp_path / kind)
        with pytest.raises(UpstreamError, match=rf"It is a {kind} model.*speech encoder: HuBERT"):
            load(tmp_path / kind)


def test_feature_extractors_that_do_not_fit_are_named(copied, tmp_path):
    folder = copied("hubert_base")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UpstreamError, match=r"hubert_base has no preprocessor_config\.json.*copy it"):
        load(folder)
    hf.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    with pytest.raises(UpstreamError, match="takes 8000 Hz, and utterances here have 16000 Hz"):
        load(folder)
    hf.WhisperFeatureExtractor().save_pretrained(folder)
    with pytest.raises(UpstreamError, match="hubert model with a WhisperFeatureExtractor is not known"):
        load(folder)
    for sizes, message in (({"mels": 128}, "128 mel bins x 3000"), ({"chunk_length": 10}, "80 mel bins x 1000")):
        write_whisper(tmp_path / "whisper", **sizes)
        with pytest.raises(UpstreamError, match=rf"{message} frames, and the model takes 80 x 3000"):
            load(tmp_path / "whisper")


def test_weights_that_do_not_fit_are_named(copied):
    for family in ("hubert_base", "whisper"):
        folder = copied(family)
        path = folder / "model.safetensors"
        whole = load_file(path)
        (name,) = [key for key in whole if key.endswith("layers.1.final_layer_norm.weight") and "decoder" not in key]
        save_file({key: weight for key, weight in whole.items() if key != name}, path, {"format": "pt"})
        with pytest.raises(UpstreamError, match=r": 1 of \d+ are missing.*layers\.1\.final_layer_norm\.weight\)"):
            load(folder)
        save_file({**whole, name: torch.ones(7)}, path, {"format": "pt"})
        with pytest.raises(UpstreamError, match=r": 1 of \d+ are missing or have another shape \(.*final_layer_norm"):
            load(folder)
    # another model's: everything is missing, three are named
    save_file({"linear.weight": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(UpstreamError, match=r"(\d+) of \1 are missing.*\(\S+, \S+, \S+, \.\.\.\)") as caught:
        load(folder)
    assert len(str(caught.value)) < 500
    path.write_bytes(b"damaged")
    with pytest.raises(UpstreamError, match=r"weights in .*whisper cannot be loaded.*config\.json"):
        load(folder)
    path.unlink()
    with pytest.raises(UpstreamError, match=r"weights in .*whisper cannot be loaded.*config\.json"):
        load(folder)


def test_a_vector_that_only_masking_uses_may_be_missing(copied):
    path = copied("unispeech_sat") / "model.safetensors"
    whole = load_file(path)
    assert "masked_spec_embed" in whole
    save_file({key: weight for key, weight in whole.items() if key != "masked_spec_embed"}, path, {"format": "pt"})
    load(path.parent)


def test_options_that_do_not_go_with_it_are_named(transformers_folder):
    name = f"hf:{transformers_folder('hubert_base')}"
    for option in ({"ckpt": "a.pt"}, {"model_config": "a.yaml"}):
        with pytest.raises(UpstreamError, match=r"hubert_base' takes no -k and no -g.*-u hf:FOLDER"):
            load_upstream(name, **option)
    with pytest.raises(UpstreamError, match=r"leave --hub huggingface out"):
        load_upstream(name, hub="huggingface")
    with pytest.raises(UpstreamError, match=r"hubert_base is a folder: --upstream_revision goes with an id"):
        load_upstream(name, revision="main")
    with pytest.raises(UpstreamError, match=r"--upstream_unpadded goes with `-u hf:FOLDER_OR_ID`.*not with 'fbank'"):
        load_upstream("fbank", unpadded=True)
    with pytest.raises(UpstreamError, match=r"Unknown upstream 'tiny_hubrt'.*'tiny_hubert'.*hf:FOLDER_OR_ID"):
        load_upstream("tiny_hubrt")


def test_what_comes_with_the_package_needs_no_prefix(transformers_folder, monkeypatch, tmp_path):
    monkeypatch.setitem(SHIPPED, "tiny_hubert", transformers_folder("hubert_large"))
    wavs = utterances(9600, 4321)
    expected = states_of(load(transformers_folder("hubert_large")), wavs)
    upstream = load_upstream("tiny_hubert", unpadded=True)
    assert upstream.unpadded
    torch.testing.assert_close(states_of(load_upstream("tiny_hubert"), wavs), expected, atol=0, rtol=0)
    for option in ({"ckpt": "a.pt"}, {"model_config": "a.yaml"}, {"revision": "main"}):
        with pytest.raises(UpstreamError, match=r"^Upstream 'tiny_hubert'"):
            load_upstream("tiny_hubert", **option)
    monkeypatch.setitem(SHIPPED, "tiny_hubert", tmp_path / "nowhere")
    with pytest.raises(UpstreamError, match=r"'tiny_hubert': its folder .*nowhere is missing: install"):
        load_upstream("tiny_hubert")


@pytest.fixture
def cache(transformers_folder, tmp_path, monkeypatch):
    """The Hub's cache, as a download leaves it, with two revisions of owner/name."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    place = tmp_path / "models--owner--name"
    (place / "refs").mkdir(parents=True)
    for revision, digit, family in (("main", "a", "hubert_base"), ("large", "b", "hubert_large")):
        shutil.copytree(transformers_folder(family), place / "snapshots" / (digit * 40))
        (place / "refs" / revision).write_text(digit * 40)
    return place


def test_an_id(cache, transformers_folder):
    wavs = utterances(9600, 4321)
    for revision, family in ((None, "hubert_base"), ("large", "hubert_large"), ("b" * 40, "hubert_large")):
        states = states_of(load_upstream("hf:owner/name", revision=revision), wavs)
        torch.testing.assert_close(states, states_of(load(transformers_folder(family)), wavs), atol=0, rtol=0)


def test_ids_that_are_not_in_the_cache_are_named(cache):
    with pytest.raises(UpstreamError, match=r"^Upstream 'hf:owner/other': .*HF_HUB_OFFLINE.*`hf download owner/other`"):
        load_upstream("hf:owner/other")
    with pytest.raises(UpstreamError, match=r"owner/name at revision small is not in .*HF_HUB_OFFLINE"):
        load_upstream("hf:owner/name", revision="small")
    for file in (cache / "snapshots").glob("*/model.safetensors"):
        file.unlink()
    with pytest.raises(UpstreamError, match=r"weights in .* cannot be loaded"):
        load_upstream("hf:owner/name")


def test_what_is_downloaded(transformers_folder, monkeypatch, copied):
    asked = []
    folder = copied("hubert_base")

    def snapshot_download(name, *, revision, force_download, allow_patterns):
        asked.append((name, revision, force_download, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    load_upstream("hf:owner/name", revision="abc", refresh=True)
    ((name, revision, force, patterns),) = asked
    assert (name, revision, force) == ("owner/name", "abc", True)

    def taken(file):
        return any(fnmatch(file, pattern) for pattern in patterns)

    assert all(map(taken, ("config.json", "preprocessor_config.json", "model.safetensors.index.json")))
    assert all(map(taken, ("model.safetensors", "model-00001-of-00002.safetensors")))
    assert not any(map(taken, ("pytorch_model.bin", "model.fp32-00001-of-00002.safetensors", "expert.py")))
    # only where there is nothing newer, the pickled file
    model = hf.HubertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    load_upstream("hf:owner/name")
    assert taken("config.json")
    patterns = asked[-1][-1]
    assert taken("pytorch_model.bin")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", r"does not give owner/name.*name right.*hf auth login"),
        ("GatedRepoError", "owner/name is gated.*hf auth login"),
        ("RevisionNotFoundError", r"owner/name has no revision abc \(--upstream_revision\)"),
    ],
)
def test_what_the_hub_refuses_is_named(kind, message, monkeypatch):
    def snapshot_download(name, **_):
        raise getattr(errors, kind)("404 Client Error\nand many more lines", response=MagicMock())

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UpstreamError, match=message) as caught:
        load_upstream("hf:owner/name", revision="abc")
    assert "\n" not in str(caught.value)
