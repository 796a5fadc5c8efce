"""SUPERB's emotion recognition (ER) on IEMOCAP, in five folds."""
