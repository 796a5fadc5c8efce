"""Mini-SUPERB: small corpora of synthetic speech in the real corpora's own layouts.

``make_mini_superb(Path("DIR"))``, or ``s3prl-interfaces mini-superb DIR``, writes them within a minute and
without a download, so that a whole run (data, upstream, interface, task, metrics) can be tried and tested
before the real corpora are there. A task reads them as it reads the real ones and cannot tell the difference.

What they are: speech of eSpeak NG (the extra ``mini``: ``pip install 's3prl-interfaces[mini]'``), with many
voices, accents, speaking rates and pitches, in slightly echoing and noisy rooms. In
``fluent_speech_commands``, ``librispeech`` and ``snips`` no speaker or voice variant is in two splits; in ``voxceleb1``
every speaker is in all of SID's, but no room and no microphone. The same seed and scale give the same bytes (of a
FLAC file, the same samples).

What they are not: data to draw conclusions from. Synthetic speech is far more regular than people's, the
rooms are a few echoes and the corpora are small. Scores on them are comparable with one another at best; they
say nothing about the real corpora, nor about which interface is better on them.

============================  =====================  ====================================================
Corpus                        SUPERB's task          Directory
============================  =====================  ====================================================
``fluent_speech_commands``    IC, spoken intents     ``fluent_speech_commands_dataset``
``voxceleb1``                 SID, SV, speakers      ``voxceleb1``
``iemocap``                   ER, emotions           ``IEMOCAP_full_release``
``librispeech``               ASR, letters; PR       ``LibriSpeech``
``snips``                     SF, slots              ``SNIPS``
``speech_commands``           KS, keywords           ``speech_commands`` (two folders in it)
============================  =====================  ====================================================
"""

from s3prl_interfaces.mini_superb.make import CORPORA, make_mini_superb

__all__ = ["CORPORA", "make_mini_superb"]
