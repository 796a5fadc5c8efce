"""Linear probes: what can be read, linearly, from each hidden state of an upstream.

A linear classifier is trained on one hidden state at a time (Alain and Bengio 2016, arXiv 1610.01644; for speech
Pasad et al. 2021, arXiv 2107.04734) for phonemes, frame by frame, and for speakers and intents from the mean over
time. The same probe on the same network with random weights and on log-mel filterbanks says what training added.

The data are synthetic (:mod:`s3prl_interfaces.mini_superb`), so the scores compare features with one another and say
nothing about people's speech.
"""
