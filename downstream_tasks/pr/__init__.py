"""SUPERB's phoneme recognition (PR) on LibriSpeech."""
