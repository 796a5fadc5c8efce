"""A HuBERT of two layers and width 16 with random weights, as `-u FILE.py:build`."""

import torch
from transformers import HubertConfig, HubertModel


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = HubertModel(
            HubertConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=16,
                conv_dim=(16,) * 7,
                feat_extract_norm="layer",
                num_conv_pos_embeddings=4,
                num_conv_pos_embedding_groups=2,
            )
        )

    def get_downsample_rates(self, key):
        return 320

    def forward(self, wavs):
        (wav,) = wavs
        return {"hidden_states": self.model(wav[None], output_hidden_states=True).hidden_states}


def build(**_):
    torch.manual_seed(0)
    return Small()
