"""SUPERB's keyword spotting (KS) on Speech Commands v0.01."""
