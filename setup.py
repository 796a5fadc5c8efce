"""Packaging. The configs live at the top of the repository and travel inside the package."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "s3prl_interfaces" / "__init__.py").read_text())[1]

EXTRAS = {
    "beam": ["flashlight-text==0.0.7"],  # its wheels bring KenLM along
    "mini": ["espeakng-loader==0.2.4"],  # the mini-SUPERB corpora are checked by hash, so the voice is pinned
    "pretrain": ["babel==2.18.0", "espeakng-loader==0.2.4", "scikit-learn>=1.4"],  # pinned: they decide what is said
    "report": ["matplotlib>=3.8"],
    "sweep": ["submitit>=1.5"],
    "test": [
        "babel==2.18.0",
        "flashlight-text==0.0.7",
        "hypothesis>=6.100",
        "matplotlib>=3.8",
        "mypy==2.4.1",
        "pytest>=8",
        "ruff==0.17.6",
        "scikit-learn>=1.4",
        "ssl-interface==0.1.0",
        "submitit>=1.5",
        "types-PyYAML",
        "types-tqdm",
    ],
}

setup(
    name="s3prl-interfaces",
    version=VERSION,
    description="Interfaces between self-supervised speech models and downstream tasks, for S3PRL",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=[
        *find_packages(include=["s3prl_interfaces*", "downstream_tasks*"]),
        "s3prl_interfaces.configs",
        "s3prl_interfaces.configs.interface",
        "s3prl_interfaces.configs.mini",
        "s3prl_interfaces.configs.mini.quick",
    ],
    package_dir={"s3prl_interfaces.configs": "configs"},
    package_data={"": ["*.css", "*.yaml", "py.typed"], "s3prl_interfaces.tiny_hubert": ["model/*"]},
    # torch and torchaudio are pinned together: neither's metadata says which other it can be imported with, and the
    # newest of each cannot be.
    install_requires=[
        "editdistance>=0.8",
        "numpy>=1.26",
        "pandas>=2",  # s3prl.downstream.specaug and most of S3PRL's tasks import it without asking for it
        "pyyaml>=6",
        "rich>=13",
        "s3prl==0.4.18",
        "soundfile>=0.12",
        "tensorboard>=2.16",
        "torch==2.11.0",
        "torchaudio==2.11.0",
        "tqdm>=4.66",
        # S3PRL asks for any. What `hf:` gives as a model's last hidden state changed between 4 and 5.
        "transformers>=5,<6",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["s3prl-interfaces = s3prl_interfaces.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
