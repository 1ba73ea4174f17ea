"""What a generated answer may be: it ends before a stop string, and matches a regular expression as a whole."""

import codecs
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import regex

from astray.envs import InputError

# What may match a character that is not itself in the constraint: sets, dots, escapes, flags (as of case), fuzziness.
CLASSES = regex.compile(r"[\[.]|\\\w|\(\?\w|\{[^}]*[a-z]")


def make_rules(stop: Sequence[str] = (), constraint: str | None = None) -> "Rules":
    """Rules for answers; the same for the same arguments, so that what was found out about them is kept.

    Args:
        stop: the answer ends before the first of these texts; where two are complete at the same place, before the
            longer.
        constraint: a regular expression of the package ``regex`` that the whole answer must match, or None.

    Raises:
        InputError: a stop string is empty, or the constraint is not a regular expression.
    """
    if isinstance(stop, str):
        raise InputError(f"stop={stop!r} must be a list of texts, as in stop=[{stop!r}]")
    if "" in stop:
        raise InputError(f"stop={list(stop)}: a stop string must not be empty")
    return _rules(tuple(stop), constraint)


class Rules:
    """Says of the bytes generated so far whether they can become an answer, or are one."""

    def __init__(self, stop: tuple[str, ...], constraint: str | None):
        self.stop = stop
        self.constraint = constraint
        try:
            self._pattern = None if constraint is None else regex.compile(constraint)
        except regex.error as error:
            raise InputError(f"constraint={constraint!r} is not a regular expression: {error}") from error
        # thousands of characters may have to be tried, unless the constraint spells out all that it matches
        self._spelled_out = constraint is None or not CLASSES.search(constraint)
        self._can_finish = lru_cache(maxsize=2**16)(self._try_to_finish)

    def before_stop(self, data: bytes) -> str | None:
        """The text before the stop string that it has come to, if it has."""
        return self._before_stop(data.decode(errors="replace")) if self.stop else None

    def is_answer(self, data: bytes) -> bool:
        """Whether the text may end here without a stop string."""
        if self._pattern is None:
            return True
        decoded = _decode(data)
        return decoded is not None and not decoded[1] and self._matches(decoded[0])

    def impossible(self, data: bytes, piece: bytes) -> bytes | None:
        """Why no answer begins with ``data + piece``, where ``data`` itself can become one.

        Returns:
            None if there is such an answer. Otherwise a beginning of the piece, as short as is easily found, with
            which there is none either.
        """
        if self._can_become(data + piece):
            return None
        for length in range(1, len(piece)):
            decoded = _decode(data + piece[:length])
            if decoded is None or (not decoded[1] and not self._text_can_become(decoded[0])):
                return piece[:length]
        return piece

    def _can_become(self, data: bytes) -> bool:
        if self._pattern is None:
            return True
        decoded = _decode(data)
        if decoded is None:
            return False
        text, unfinished = decoded
        return self._can_finish(text, unfinished) if unfinished else self._text_can_become(text)

    def _try_to_finish(self, text: str, unfinished: bytes) -> bool:
        chars = {char for text in (self.constraint or "", *self.stop) for char in text}
        own = [char for char in chars if char.encode().startswith(unfinished)]
        others = () if self._spelled_out else _characters(unfinished)
        return any(self._text_can_become(text + char) for char in chain(own, others))

    def _text_can_become(self, text: str) -> bool:
        assert self._pattern is not None
        if self.stop and (answer := self._before_stop(text)) is not None:
            return self._matches(answer)
        if self._pattern.fullmatch(text, partial=True):
            return True
        # its end may turn out to be the beginning of a stop string, which is no part of the answer
        return any(
            text.endswith(stop[:length]) and self._matches(text[:-length])
            for stop in self.stop
            for length in range(1, len(stop))
        )

    def _matches(self, text: str) -> bool:
        return self._pattern is None or self._pattern.fullmatch(text) is not None

    def _before_stop(self, text: str) -> str | None:
        # the first to be complete, so that it does not matter how many characters a token brings
        found = [(start + len(stop), start) for stop in self.stop if (start := text.find(stop)) >= 0]
        return text[: min(found)[1]] if found else None


_rules = lru_cache(maxsize=16)(Rules)


def _decode(data: bytes) -> tuple[str, bytes] | None:
    """The text, and the bytes of an unfinished character after it; None if no text begins with ``data``."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return decoder.decode(data), decoder.getstate()[0]
    except UnicodeDecodeError:
        return None


@lru_cache
def _characters(unfinished: bytes) -> tuple[str, ...]:
    """The characters that begin with these bytes; after one byte of four, those that Unicode has assigned."""
    first = unfinished[0]
    length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    code = first & (0x7F >> length)
    for byte in unfinished[1:]:
        code = code << 6 | byte & 0x3F
    free = 6 * (length - len(unfinished))
    lowest, highest = {2: (0x80, 0x7FF), 3: (0x800, 0xFFFF), 4: (0x10000, 0x10FFFF)}[length]
    codes = range(max(code << free, lowest), min((code + 1 << free) - 1, highest) + 1)
    # a quarter of a million would take too long; half of them are no characters yet, or of private use
    left_out = ("Cs", "Cn", "Co") if free == 18 else ("Cs",)
    return tuple(char for char in map(chr, codes) if unicodedata.category(char) not in left_out)
