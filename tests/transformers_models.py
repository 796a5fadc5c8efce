"""Small random models of transformers' speech families, written as their authors' are: model and feature extractor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from s3prl_interfaces.upstream import load_upstream

LAYERS, WIDTH = 3, 32
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "layerdrop": 0.9,  # which must not be seen
}
CONVS: dict[str, Any] = {
    **SIZES,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE: dict[str, Any] = {**CONVS, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
SEW: dict[str, Any] = {**CONVS, "conv_dim": [32] * 13}
WHISPER: dict[str, Any] = {
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 20,
    "encoder_layerdrop": 0.9,
    **{f"{name}_token_id": number for number, name in enumerate(("pad", "bos", "eos", "decoder_start"))},
}


def wav2vec2_extractor(normalize: bool, mask: bool) -> hf.FeatureExtractionMixin:
    return hf.Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=mask)


# family -> its model, its feature extractor as published: Base models are said to take no mask
FAMILIES: dict[str, tuple[Callable[[], hf.PreTrainedModel], Callable[[], hf.FeatureExtractionMixin]]] = {
    "hubert_large": (lambda: hf.HubertModel(hf.HubertConfig(**LARGE)), lambda: wav2vec2_extractor(True, True)),
    "hubert_base": (lambda: hf.HubertModel(hf.HubertConfig(**CONVS)), lambda: wav2vec2_extractor(True, False)),
    "wav2vec2_large": (lambda: hf.Wav2Vec2Model(hf.Wav2Vec2Config(**LARGE)), lambda: wav2vec2_extractor(True, True)),
    "wav2vec2_base": (lambda: hf.Wav2Vec2Model(hf.Wav2Vec2Config(**CONVS)), lambda: wav2vec2_extractor(True, False)),
    "wavlm_large": (lambda: hf.WavLMModel(hf.WavLMConfig(**LARGE)), lambda: wav2vec2_extractor(True, True)),
    "wavlm_base": (lambda: hf.WavLMModel(hf.WavLMConfig(**CONVS)), lambda: wav2vec2_extractor(False, False)),
    "unispeech": (lambda: hf.UniSpeechModel(hf.UniSpeechConfig(**CONVS)), lambda: wav2vec2_extractor(True, False)),
    "unispeech_sat": (
        lambda: hf.UniSpeechSatModel(hf.UniSpeechSatConfig(**CONVS)),
        lambda: wav2vec2_extractor(False, False),
    ),
    "data2vec": (
        lambda: hf.Data2VecAudioModel(hf.Data2VecAudioConfig(**{**CONVS, "num_conv_pos_embeddings": 5})),
        lambda: wav2vec2_extractor(True, True),
    ),
    "w2v_bert": (
        lambda: hf.Wav2Vec2BertModel(hf.Wav2Vec2BertConfig(**SIZES)),
        lambda: hf.SeamlessM4TFeatureExtractor(padding_value=1),
    ),
    "whisper": (lambda: hf.WhisperModel(hf.WhisperConfig(**WHISPER)), hf.WhisperFeatureExtractor),
    "conformer": (
        lambda: hf.Wav2Vec2ConformerModel(hf.Wav2Vec2ConformerConfig(**LARGE)),
        lambda: wav2vec2_extractor(True, True),
    ),
    "sew": (lambda: hf.SEWModel(hf.SEWConfig(**SEW)), lambda: wav2vec2_extractor(True, False)),
}


def enliven(model: torch.nn.Module) -> None:
    """Draw weights so large that every frame matters to every other: fresh ones hardly do."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def write(family: str, folder: Path, dtype: torch.dtype = torch.float32) -> hf.PreTrainedModel:
    """Write a family's folder; returns the model that it holds."""
    make, extractor = FAMILIES[family]
    torch.manual_seed(1)
    model = make().eval()
    enliven(model)
    model.to(dtype).save_pretrained(folder)
    extractor().save_pretrained(folder)
    return model


def write_whisper(
    folder: Path, model_class: type = hf.WhisperModel, chunk_length: int = 30, mels: int = 80, **sizes: int
) -> hf.PreTrainedModel:
    """Write a Whisper; the feature extractor is for ``mels`` bins of windows of ``chunk_length`` seconds."""
    torch.manual_seed(1)
    model = model_class(hf.WhisperConfig(**{**WHISPER, **sizes}))
    enliven(model)
    model.save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=mels, chunk_length=chunk_length).save_pretrained(folder)
    return model


def utterances(*samples: int) -> list[Tensor]:
    """Noise, loud and quiet."""
    generator = torch.Generator().manual_seed(0)
    scales = (0.1, 0.3, 0.05, 0.2)
    return [scale * torch.randn(n, generator=generator) for n, scale in zip(samples, scales, strict=False)]


def load(folder: Path | str, **options: Any) -> nn.Module:
    return load_upstream(f"hf:{folder}", **options)


@torch.no_grad()
def states_of(upstream: nn.Module, wavs: list[Tensor]) -> list[Tensor]:
    return upstream(wavs)["hidden_states"]
