"""Run a downstream task with S3PRL's flags; see `--help`."""

import sys

from s3prl_interfaces.cli import run_downstream

if __name__ == "__main__":
    sys.exit(run_downstream())
