"""LibriSpeech for phoneme recognition: its transcripts, word by word as a lexicon pronounces them."""

from collections.abc import Mapping, Sequence

import numpy as np

from downstream_tasks.librispeech import Utterance
from downstream_tasks.pr.phones import Lexicon, words_of
from downstream_tasks.text_expert import Transcribed
from downstream_tasks.vocabulary import EOS, Vocabulary


def transcribe(
    splits: Mapping[str, Sequence[Utterance]], lexicon: Lexicon, vocabulary: Vocabulary, *, eos: bool = True
) -> dict[str, list[Transcribed]]:
    """The phones of each utterance.

    Args:
        splits: the utterances of each split.
        lexicon: phones of the vocabulary.
        vocabulary: of the targets.
        eos: whether ``<eos>`` ends each target.

    Raises:
        DataError: the lexicon lacks a word of any split.
    """
    words = words_of((utterance for utterances in splits.values() for utterance in utterances), lexicon)
    ids = {word: [vocabulary.ids[phone] for phone in lexicon[word]] for word in words}
    end = [EOS] if eos else []
    return {
        split: [
            Transcribed(one.path, np.array([index for word in one.text.split() for index in ids[word]] + end))
            for one in utterances
        ]
        for split, utterances in splits.items()
    }
