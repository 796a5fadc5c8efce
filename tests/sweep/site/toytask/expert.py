"""The toy task of tests/runner, which can be told to be slow or to fail."""

import time

from s3prl_interfaces.errors import DataError
from tests.runner import toys


class DownstreamExpert(toys.DownstreamExpert):
    def get_dataloader(self, split, epoch=0):
        if self.settings.get("fail"):
            raise DataError("The toy corpus is not here: unpack it.")
        return super().get_dataloader(split, epoch)

    def forward(self, split, *others, **more):
        if split == "train":
            time.sleep(self.settings.get("sleep", 0))
        return super().forward(split, *others, **more)
