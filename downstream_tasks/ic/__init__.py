"""SUPERB's intent classification (IC) on Fluent Speech Commands."""
