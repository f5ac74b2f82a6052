"""A reply's text as it grows: whole characters only, and nothing of a text that stops it."""

from collections.abc import Sequence

from orpo.chat_model.streaming import WholeCharacters


class GrowingText:
    """Turns the text so far into the pieces that may be shown; a text that stops the reply is never among them."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """Show everything up to the first of these."""
        self._stops = [stop for stop in stops if stop]
        self._pieces = WholeCharacters()

    def feed(self, text: str) -> tuple[str, bool]:
        """Return what can be shown now of the whole text so far, and whether the reply is stopped."""
        cut = self._stop_at(text)
        if cut is not None:
            return self._pieces.finish(text[:cut]), True
        return self._pieces.feed(text[: len(text) - self._held_back(text)]), False

    def finish(self, text: str) -> tuple[str, bool]:
        """Return the rest of the whole text, and whether it is stopped."""
        cut = self._stop_at(text)
        return self._pieces.finish(text if cut is None else text[:cut]), cut is not None

    def _stop_at(self, text: str) -> int | None:
        return min((place for stop in self._stops if (place := text.find(stop)) >= 0), default=None)

    def _held_back(self, text: str) -> int:
        """Return how much of the end may turn out to be the beginning of a stop."""
        for length in range(min(len(text), max(map(len, self._stops), default=1) - 1), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
