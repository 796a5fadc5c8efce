"""Any speech encoder of Hugging Face's transformers as an S3PRL upstream (``-u hf:FOLDER_OR_ID``)."""

from s3prl_interfaces.transformers_upstream.encoder import TransformersUpstream
from s3prl_interfaces.transformers_upstream.load import load_transformers_upstream

__all__ = ["TransformersUpstream", "load_transformers_upstream"]
