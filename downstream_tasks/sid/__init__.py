"""SUPERB's speaker identification (SID) on VoxCeleb1."""
