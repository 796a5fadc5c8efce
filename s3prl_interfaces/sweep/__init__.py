"""Many runs from one YAML file: the product of upstreams, tasks, interfaces, seeds and config values.

``load_sweep`` reads and checks it, ``run_sweep`` trains what is not finished, one run after another or as jobs.
"""

from s3prl_interfaces.sweep.cells import Sweep
from s3prl_interfaces.sweep.execute import refuse_failures, run_sweep
from s3prl_interfaces.sweep.plan import load_sweep
from s3prl_interfaces.sweep.show import describe

__all__ = ["Sweep", "describe", "load_sweep", "refuse_failures", "run_sweep"]
