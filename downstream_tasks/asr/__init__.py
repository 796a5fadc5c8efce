"""SUPERB's speech recognition (ASR) on LibriSpeech."""
