"""SUPERB's slot filling (SF) on Audio SNIPS."""
