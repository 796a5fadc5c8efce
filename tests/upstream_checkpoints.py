"""Small random checkpoints in the file formats that S3PRL's own loaders read.

Each function writes a file (or folder) and returns the model whose weights it holds, so that a test can tell
loaded weights from freshly drawn ones.
"""

import argparse
import contextlib
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from s3prl_interfaces.s3prl_compat import import_s3prl

LAYERS, WIDTH = 3, 32
# a total stride of 320 samples, as S3PRL's experts promise
CONV_LAYERS = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2"
TRANSFORMER = {
    "encoder_layers": LAYERS,
    "encoder_embed_dim": WIDTH,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 4,
    "conv_feature_layers": CONV_LAYERS,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "encoder_layerdrop": 0.05,  # S3PRL's experts have to turn it off: it changes the number of states
}


def hubert(path: Path, **model_cfg: object) -> nn.Module:
    """The layout of ``upstream/hubert/convert.py``; its configs hold keys that S3PRL drops (``_name``)."""
    lib = import_s3prl("s3prl.upstream.hubert.hubert_model")
    cfg = {**TRANSFORMER, "label_rate": 50.0, "final_dim": 16, "untie_final_proj": True}
    task = {"label_rate": 50.0, "sample_rate": 16000, "normalize": False}
    symbols = [["<s>", "<pad>", "</s>", "<unk>", "0", "1"]]
    model = lib.HubertModel(lib.HubertConfig(**cfg), lib.HubertPretrainingConfig(**task), symbols)
    state = {
        "task_cfg": {"_name": "hubert_pretraining", "data": "/data", **task},
        "model_cfg": {"_name": "hubert", **cfg, **model_cfg},
        "model_weight": model.state_dict(),
        "dictionaries_symbols": symbols,
    }
    torch.save(state, path)
    return model


def wavlm(path: Path) -> nn.Module:
    """The layout of the released WavLM files, ``upstream/wavlm/expert.py``."""
    lib = import_s3prl("s3prl.upstream.wavlm.WavLM")
    cfg = {**TRANSFORMER, "relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 32}
    model = lib.WavLM(lib.WavLMConfig(cfg))
    torch.save({"cfg": cfg, "model": model.state_dict()}, path)
    return model


def wav2vec2(path: Path, xlsr: bool = False) -> nn.Module:
    """The layout of ``upstream/wav2vec2/convert.py``; XLSR is pre-norm and takes normalized waveforms."""
    lib = import_s3prl("s3prl.upstream.wav2vec2.wav2vec2_model")
    cfg: dict = {**TRANSFORMER, "quantize_targets": True, "final_dim": 16, "latent_vars": 8}
    if xlsr:
        cfg |= {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}
    model = lib.Wav2Vec2Model(lib.Wav2Vec2Config(**cfg))
    state = {
        "task_cfg": {"_name": "audio_pretraining", "sample_rate": 16000, "normalize": xlsr},
        "model_cfg": {"_name": "wav2vec2", **cfg},
        "model_weight": model.state_dict(),
    }
    torch.save(state, path)
    return model


def data2vec(path: Path) -> nn.Module:
    """The layout of ``upstream/data2vec/convert.py``: no pretraining head, and the teacher under ``_ema``."""
    lib = import_s3prl("s3prl.upstream.data2vec.data2vec_model")
    cfg = {**TRANSFORMER, "conv_pos": 5, "pos_conv_depth": 2, "average_top_k_layers": 2}
    cfg |= {"extractor_mode": "layer_norm"}
    model = lib.Data2VecAudioModel(lib.Data2VecAudioConfig(**cfg))
    model.remove_pretraining_modules()
    state = {
        "task_cfg": {"_name": "audio_pretraining", "sample_rate": 16000, "normalize": True},
        "model_cfg": {"_name": "data2vec_audio", **cfg},
        "model_weight": OrderedDict(**model.state_dict(), _ema={"layers.0.fc1.bias": torch.zeros(64)}),
    }
    torch.save(state, path)
    return model


def mockingjay(path: Path, masked_frequency: int = 0, old: bool = False) -> nn.Module:
    """The layout of ``pretrain/runner.py``: Namespace, optimizer with a schedule object, two configs."""
    lib = import_s3prl("s3prl.upstream.mockingjay.model")
    optimizers = import_s3prl("s3prl.optimizers")
    transformer = {
        "input_dim": -1,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "share_layer": False,
        "pre_layer_norm": False,
    }
    audio = {
        "kaldi": {
            "feat_type": "fbank",
            "fbank": {"num_mel_bins": 20, "frame_length": 25.0, "frame_shift": 10.0, "use_log_fbank": True},
        },
        "delta": {"order": 2, "win_length": 5},
        "cmvn": {"use_cmvn": True},
    }
    model = lib.TransformerModel(lib.TransformerConfig(transformer), 20 * 3)
    optimizer = optimizers.BertAdam(model.parameters(), lr=1e-4, warmup=0.07, t_total=100)
    args = argparse.Namespace(upstream="mockingjay", expdir="/exp", seed=1337, device="cuda", multi_gpu=False)
    state = {
        "Optimizer": optimizer.state_dict(),
        "Step": 100,
        "Args": args,
        "Config": {"runner": {"total_steps": 100}, "optimizer": {"lr": "4.e-4"}},
        "SpecHead": {},
        "Transformer": model.state_dict(),
        "Upstream_Config": {
            "transformer": transformer,
            "task": {"sequence_length": 1500, "mask_frequency": masked_frequency},
            "audio": audio,
        },
    }
    schedule = type(optimizer.param_groups[0]["schedule"])
    with _known_as(schedule, "optimizers") if old else contextlib.nullcontext():
        torch.save(state, path)
    return model


def tera(path: Path) -> nn.Module:
    """TERA is Mockingjay with masked frequencies (``upstream/tera/expert.py``); here as an old file."""
    return mockingjay(path, masked_frequency=20, old=True)


@contextlib.contextmanager
def _known_as(cls: type, module: str) -> Iterator[None]:
    """Pickle a class under the name of the module that it was in once."""
    before = cls.__module__
    sys.modules[module], cls.__module__ = sys.modules[before], module
    try:
        yield
    finally:
        cls.__module__ = before
        del sys.modules[module]


def hf(path: Path, kind: str) -> nn.Module:
    """A folder of transformers' ``save_pretrained``; ``kind`` is ``Hubert`` or ``Wav2Vec2``."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    model = getattr(transformers, f"{kind}Model")(config)
    model.save_pretrained(path)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(path)
    return model


class _Touches:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.command = f"touch {path}"

    def __reduce__(self) -> tuple:
        import os

        return os.system, (self.command,)


def malicious(path: Path, proof: Path, zipped: bool = True) -> None:
    """A checkpoint that makes the file ``proof`` when it is unpickled; old files are not zipped."""
    state = {"model_weight": _Touches(proof), "Config": {"transformer": {}}}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
