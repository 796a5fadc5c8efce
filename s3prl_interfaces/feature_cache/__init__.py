"""Hidden states on disk: a frozen upstream sees an utterance once, whatever epoch, run or interface asks for it."""

from s3prl_interfaces.feature_cache.cached import CachedUpstream
from s3prl_interfaces.feature_cache.fingerprint import fingerprint
from s3prl_interfaces.feature_cache.store import Store

__all__ = ["CachedUpstream", "Store", "fingerprint"]
