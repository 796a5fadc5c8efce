"""tiny_hubert: how a small HuBERT is made from nothing, on a CPU (``scripts/pretrain_tiny_hubert.py``).

The steps, in the order in which they are taken: ``texts`` and ``voices`` make a ``corpus`` of synthetic speech;
``filters`` trains the convolutions of ``network`` to hear its spectrum; ``targets`` clusters its frames;
``pretraining`` trains the blocks to recognise the clusters of hidden frames, all under the noise of ``distortion``; the
second round does so with clusters of what the first has learned. ``model`` holds what came out, and its card.
"""
