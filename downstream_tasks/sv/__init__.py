"""SUPERB's speaker verification (SV, in SUPERB's tables ASV) on VoxCeleb1."""
