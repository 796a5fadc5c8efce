"""What every property here is made of: odd inputs, and what may become of them."""

import contextlib
import os
import resource
import signal
from pathlib import Path

from hypothesis import strategies as st

from s3prl_interfaces.errors import UserError

SECONDS = 20
"""Of the processor: after so many a reader hangs. Not of the clock, which goes on while others use the machine."""
MEMORY = 3 << 30
"""A reader of a small file that wants more than this is not careful."""

ODD = [
    *(b"", b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r", b"\r\n", b"\x0b", b"\x0c"),
    *(b"\x1c", b"\xc2\x85", b"\xe2\x80\xa8", b"\t", b" ", b"  ", b",", b",,", b'"', b'""', b"'", b"/", b"//", b"|"),
    *(b"/a/b/c.wav", b"a//b", b"../", b".", b"..", b"-", b"_", b"a" * 300, b"a/" * 3000, b'"\\ud800"', b'"\\u0000"'),
    *(b"0", b"-1", b"1.5", b"1e999", b"nan", b"NaN", b"\xd9\xa1", b"\xc2\xb2", b"9" * 400, b"9" * 5000, b"9" * 20),
    *(b"null", b"true", b"[]", b"{}", b"[" * 3000, b'{"a":' * 3000, b"[" * 3000 + b"]" * 3000),
]
"""What parsers trip over."""
SHORT = [odd for odd in ODD if len(odd) < 1000]
"""For readers that are slow with what is nested or long: it stands in examples of their own."""


SEPARATORS = (b"\n", b" ", b",", b"\t", b"/", b":", b'"')


@st.composite
def mutated(draw, valid, odd=ODD, most=3):
    """Bytes of a valid file with some of them cut out, repeated or overwritten, or a field of it replaced."""
    content = valid
    for _ in range(draw(st.integers(1, most))):
        separators = [separator for separator in SEPARATORS if separator in content]
        if separators and draw(st.booleans()):
            separator = draw(st.sampled_from(separators))
            fields = content.split(separator)
            fields[draw(st.integers(0, len(fields) - 1))] = draw(st.sampled_from(odd))
            content = separator.join(fields)
            continue
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        match draw(st.sampled_from(["insert", "overwrite", "cut", "truncate", "repeat"])):
            case "insert":
                content = content[:start] + draw(st.binary(max_size=4) | st.sampled_from(odd)) + content[start:]
            case "overwrite":
                new = draw(st.binary(min_size=1, max_size=4))
                content = content[:start] + new + content[start + len(new) :]
            case "cut":
                content = content[:start] + content[end:]
            case "truncate":
                content = content[:start]
            case "repeat":
                content = content[:end] + content[start:end] + content[end:]
    return content


def contents(valid, odd=ODD):
    """Mutated bytes of a valid file, and now and then any bytes at all."""
    damaged = mutated(valid, odd)
    return st.one_of(damaged, damaged, damaged, st.binary(max_size=200), st.sampled_from(odd))


class Late(BaseException):
    """Not caught by `except Exception`."""


@contextlib.contextmanager
def within(seconds=SECONDS, memory=MEMORY):
    """End what takes longer, and let fail what wants so much more memory than there was before."""

    def ring(signum, frame):
        raise Late

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    # What waits for something uses no processor, so there is a clock, too.
    timers = [(signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 20 * seconds)]
    before = [signal.signal(number, ring) for _, number, _ in timers]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    except Late as error:
        raise AssertionError(f"not done after {seconds} s") from error
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(call, *names):
    """What ``call`` returns; or None where it raises a UserError, whose one line must have one of ``names``."""
    with within():
        try:
            return call()
        except UserError as error:
            message = str(error)
    assert "\n" not in message, message
    assert not names or any(name in message for name in names), message
    return None


def files_in(folder):
    """Every file below a folder, relative to it."""
    return {Path(place, name).relative_to(folder).as_posix() for place, _, names in os.walk(folder) for name in names}
