"""From a folder or an id of the Hugging Face Hub to an upstream, with one line for everything that can be wrong.

No code of a repository is run (``trust_remote_code`` is False), and weights are read as data only.
"""

import contextlib
import logging
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from s3prl_interfaces.errors import UpstreamError
from s3prl_interfaces.transformers_upstream.encoder import MaskedUpstream, TransformersUpstream, WhisperUpstream
from s3prl_interfaces.transformers_upstream.inputs import FilterBanks, LogMels, Waveforms

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
# What transformers itself would look for; "model-*" does not match the second copies that some repositories hold.
FILES = ["*.json", "model.safetensors", "model-*.safetensors"]
OLDER_FILES = ["pytorch_model.bin", "pytorch_model-*.bin"]
# Relative to the spread of the hidden states; rounding stays far below, a group norm over padding far above it.
PADDING_MATTERS = 1e-3
_FAMILIES = "HuBERT, wav2vec 2.0, WavLM, data2vec and their like, w2v-BERT or Whisper"


def load_transformers_upstream(
    source: str, *, revision: str | None = None, refresh: bool = False, unpadded: bool = False
) -> TransformersUpstream:
    """Load a speech encoder of transformers, float32 whatever its file holds, in eval mode on the CPU.

    Args:
        source: a folder as ``save_pretrained`` writes it, model and feature extractor, or an id of the Hugging Face
            Hub. Of a checkpoint for a task (CTC, pre-training, speech to text) the encoder is taken.
        revision: the branch, tag or commit of an id.
        refresh: download an id again.
        unpadded: run utterances one at a time; see :class:`TransformersUpstream`.

    Raises:
        UpstreamError: there is no such model, it is no speech encoder at 16 kHz, or its weights do not fit.
    """
    with _quiet():
        folder = _folder(source, revision, refresh)
        config = _config(folder)
        model_class = _model_class(config)
        extractor = _extractor(folder)
        model = _model(folder, model_class, config)
        upstream = _upstream(model, config, extractor, unpadded)
    if upstream.padding_effect > PADDING_MATTERS and not unpadded:
        logger.warning(
            "The hidden states of %s depend on what an utterance is padded with (%s lets it in); "
            "`--upstream_unpadded` runs utterances one at a time.",
            source,
            config.model_type,
        )
    return upstream


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' reports and progress bars off the terminal: what matters of them is said here."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _folder(source: str, revision: str | None, refresh: bool) -> Path:
    """The folder of the model; of an id, the one in the Hub's cache."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UpstreamError(f"{folder} is a folder: --upstream_revision goes with an id of the Hugging Face Hub.")
        return folder
    if re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", source) is None:
        raise UpstreamError(f"There is no folder {folder}.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RevisionNotFoundError

    logger.info("Taking %s from the Hugging Face Hub, or from its cache if it has been downloaded before.", source)
    try:
        place = snapshot_download(source, revision=revision, force_download=refresh, allow_patterns=FILES)
        if not any(path for pattern in FILES[1:] for path in Path(place).glob(pattern)):
            place = snapshot_download(source, revision=revision, force_download=refresh, allow_patterns=OLDER_FILES)
    except LocalEntryNotFoundError as error:
        which = source if revision is None else f"{source} at revision {revision}"
        raise UpstreamError(
            f"There is no folder {source}, {which} is not in the Hugging Face Hub's cache, and there is no connection "
            f"(or HF_HUB_OFFLINE is set): run `hf download {source}` where there is one, or name a folder."
        ) from error
    except GatedRepoError as error:
        raise UpstreamError(f"{source} is gated: accept its terms on its page, then `hf auth login`.") from error
    except RevisionNotFoundError as error:
        raise UpstreamError(f"{source} has no revision {revision} (--upstream_revision).") from error
    except Exception as error:
        raise UpstreamError(
            f"There is no folder {source}, and the Hugging Face Hub does not give {source} ({_first_line(error)}): is "
            "the name right? A private model needs `hf auth login`."
        ) from error
    return Path(place)


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise UpstreamError(f"{folder} has no config.json: name a folder that `save_pretrained` has written.")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise UpstreamError(
            f"{folder / 'config.json'} is of no model that the installed transformers knows ({_first_line(error)}). "
            "Models with code of their own are not run; a newer family may need a newer transformers."
        ) from error
    for name in ("layerdrop", "encoder_layerdrop", "mask_time_prob", "mask_feature_prob"):  # see TransformersUpstream
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config.return_dict = True
    return config


def _model_class(config: Any) -> Any:
    import transformers

    if config.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder
    model_class = transformers.MODEL_MAPPING.get(type(config), None)
    hears = getattr(model_class, "main_input_name", None) in ("input_values", "input_features")
    if not hears or getattr(config, "is_encoder_decoder", False):
        raise UpstreamError(f"It is a {config.model_type} model. An upstream is a speech encoder: {_FAMILIES}.")
    return model_class


def _extractor(folder: Path) -> Any:
    from transformers import AutoFeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise UpstreamError(
            f"{folder} has no preprocessor_config.json that can be read ({_first_line(error)}). It says how waveforms "
            "are prepared: copy it from the model that this one was made from, or save that model's feature extractor "
            "there with `save_pretrained`."
        ) from error
    if extractor.sampling_rate != SAMPLE_RATE:
        raise UpstreamError(
            f"Its feature extractor takes {extractor.sampling_rate} Hz, and utterances here have {SAMPLE_RATE} Hz: "
            "take a model of 16 kHz."
        )
    return extractor


def _model(folder: Path, model_class: Any, config: Any) -> Any:
    try:
        model, report = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            # Whisper's checkpoints hold a decoder beside it, for some tasks all under `model`.
            key_mapping={r"^(model\.)?encoder\.": ""} if config.model_type == "whisper" else None,
            local_files_only=True,
            weights_only=True,
            ignore_mismatched_sizes=True,  # to name them
            output_loading_info=True,
        )
    except pickle.UnpicklingError as error:
        raise UpstreamError(
            f"The weights in {folder} are not read: the file is damaged or holds more than weights, which may run "
            "code. Take the model's safetensors file."
        ) from error
    except Exception as error:
        raise UpstreamError(
            f"The weights in {folder} cannot be loaded ({_first_line(error)}): it needs the model.safetensors or "
            "pytorch_model.bin that goes with its config.json."
        ) from error
    wrong = {key for key, *_ in report["mismatched_keys"]}
    # That is used by the masking of spans only, which is off.
    wrong |= {key for key in report["missing_keys"] if not key.endswith("masked_spec_embed")}
    if wrong:
        some = ", ".join(sorted(wrong)[:3]) + (", ..." if len(wrong) > 3 else "")
        raise UpstreamError(
            f"The weights in {folder} do not fit its config.json: {len(wrong)} of {len(model.state_dict())} are "
            f"missing or have another shape ({some}). Take the two from the same model."
        )
    return model


def _upstream(model: Any, config: Any, extractor: Any, unpadded: bool) -> TransformersUpstream:
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

    upstream: TransformersUpstream
    if config.model_type == "whisper" and isinstance(extractor, WhisperFeatureExtractor):
        sizes, expected = (
            (extractor.feature_size, extractor.nb_max_frames),
            (config.num_mel_bins, 2 * config.max_source_positions),
        )
        if sizes != expected:
            raise UpstreamError(
                f"Its feature extractor gives {sizes[0]} mel bins x {sizes[1]} frames, and the model takes "
                f"{expected[0]} x {expected[1]}: take config.json and preprocessor_config.json from the same model."
            )
        upstream = WhisperUpstream(model, LogMels(extractor), config.max_source_positions, unpadded)
    elif config.model_type == "wav2vec2-bert" and isinstance(extractor, SeamlessM4TFeatureExtractor):
        upstream = MaskedUpstream(model, FilterBanks(extractor), unpadded)
    elif model.main_input_name == "input_values" and isinstance(extractor, Wav2Vec2FeatureExtractor):
        upstream = MaskedUpstream(model, Waveforms(extractor.do_normalize, _samples_of_a_frame(config)), unpadded)
    else:
        raise UpstreamError(
            f"A {config.model_type} model with a {type(extractor).__name__} is not known here. An upstream is a speech "
            f"encoder with the feature extractor of its family: {_FAMILIES}."
        )
    return upstream.eval()


def _samples_of_a_frame(config: Any) -> int:
    """The fewest samples of which the convolutions make a frame; SEW needs some frames of which to make one."""
    samples = getattr(config, "squeeze_factor", 1)
    for kernel, stride in reversed(list(zip(config.conv_kernel, config.conv_stride, strict=True))):
        samples = (samples - 1) * stride + kernel
    return samples


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200]}".rstrip(":. ")
