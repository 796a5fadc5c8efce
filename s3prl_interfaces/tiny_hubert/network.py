"""tiny_hubert's network: a HuBERT of transformers, and how it is written and read out."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from s3prl_interfaces.tiny_hubert.corpus import SAMPLE_RATE


def make_model() -> HubertModel:
    """The network with fresh weights, 2.3 million: 12 blocks of width 128.

    As in HuBERT Base the convolutions have one norm, over time, and as in HuBERT Large the blocks have theirs before
    each sublayer, with which many blocks train from the start. Half of the arithmetic would be the first
    convolutions', at 3,200 frames a second, if they were as wide as the last.
    """
    model = HubertModel(
        HubertConfig(
            hidden_size=128,
            num_hidden_layers=12,
            num_attention_heads=4,
            intermediate_size=384,
            conv_dim=(32, 64, 64, 64, 128, 128, 128),
            conv_bias=True,
            feat_extract_norm="group",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=64,
            num_conv_pos_embedding_groups=8,
            hidden_dropout=0.05,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            layerdrop=0.0,
            mask_time_prob=0.08,
        )
    )
    scale_weights(model)
    return model


def scale_weights(model: HubertModel) -> None:
    """Draw the blocks' weights for a narrow network; transformers' deviation of 0.02 is made for a width of 768.

    Frames enter the blocks with a deviation of about 1, and each block adds little to them at first, so that the last
    block still gives what the convolutions heard.
    """
    deviation = 1 / math.sqrt(model.config.hidden_size)
    with torch.no_grad():
        projection = model.feature_projection.projection
        projection.weight.normal_(0, 1 / math.sqrt(projection.in_features))
        for name, module in model.encoder.layers.named_modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, deviation)
                if name.endswith(("out_proj", "output_dense")):  # the last of a sublayer
                    module.weight.mul_(0.2)


def normalized(wavs: Tensor) -> Tensor:
    """Waveforms ``(batch, time)`` with mean 0 and variance 1, as the feature extractor gives them."""
    mean, variance = wavs.mean(dim=1, keepdim=True), wavs.var(dim=1, keepdim=True, correction=0)
    return (wavs - mean) / torch.sqrt(variance + 1e-7)


def layer_features(model: HubertModel, layer: int) -> Callable[[Tensor], Tensor]:
    """Put the network into eval mode, and give a function from a waveform to one of its hidden states.

    Args:
        model: The network.
        layer: 0 is the first block's input, 12 the last block's output.

    Returns:
        From ``(time,)``, float32 at 16 kHz, to ``(frames, 128)`` on the CPU.
    """

    def features(wav: Tensor) -> Tensor:
        with torch.inference_mode():
            states = model(normalized(wav[None]).to(model.device), output_hidden_states=True).hidden_states
        return states[layer][0].cpu()

    model.eval()
    return features


def save(model: HubertModel, folder: Path) -> None:
    """Write network and feature extractor in transformers' format, the weights in float16: half the size."""
    half = HubertModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # transformers makes it its owner's alone
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=SAMPLE_RATE, do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(folder)
