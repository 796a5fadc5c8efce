"""What the utterances of a classifying task can be, and the ids of it."""

from collections.abc import Mapping, Sequence

import numpy as np


class Labels:
    """The values of each of a task's slots, in the order of their ids.

    Args:
        values: slot -> values. Most tasks have one slot.
    """

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self.values = {slot: list(of_slot) for slot, of_slot in values.items()}
        self._ids = {slot: {value: index for index, value in enumerate(of_slot)} for slot, of_slot in values.items()}

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots."""
        return tuple(self.values)

    @property
    def sizes(self) -> list[int]:
        """How many values each slot has."""
        return [len(values) for values in self.values.values()]

    def encode(self, values: Sequence[str]) -> np.ndarray:
        """The ids of one value per slot, (slots,) int64.

        Raises:
            KeyError: a slot has no such value; its arguments are the slot and the value.
        """
        for slot, value in zip(self.slots, values, strict=True):
            if value not in self._ids[slot]:
                raise KeyError(slot, value)
        return np.array([self._ids[slot][value] for slot, value in zip(self.slots, values, strict=True)])

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The values of one id per slot."""
        return tuple(values[index] for values, index in zip(self.values.values(), ids, strict=True))
