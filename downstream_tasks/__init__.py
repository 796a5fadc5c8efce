"""The SUPERB tasks: one folder each, with what they share beside them. They know features, not interfaces."""
