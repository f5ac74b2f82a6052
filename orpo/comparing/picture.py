"""A picture of a comparison as SVG, written by hand: text and rectangles need no drawing library."""

import re
import unicodedata
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import regex

from orpo.comparing.comparison import Comparison, Measures, Side
from orpo.scoring import count_emojis, find_emojis

_WIDTH = 960
_MARGIN = 32
_GAP = 20
_LINE = 21
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
_EMOJI_FONT = "'Apple Color Emoji', 'Segoe UI Emoji', 'Noto Color Emoji', sans-serif"
_COLOURS = {"base": ("#8a94a6", "#f1f3f6"), "tuned": ("#e08a00", "#fff4e0")}
_INK, _QUIET = "#1c2430", "#5c6675"
# XML allows no control characters, lone surrogates or non-characters, not even escaped; a model may write any.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class _Canvas:
    """Collects elements; `y` is where the next block goes."""

    elements: list[str] = field(default_factory=list)
    y: float = _MARGIN

    def box(self, x: float, y: float, width: float, height: float, fill: str, radius: int = 8) -> None:
        self.elements.append(
            f'<rect x="{x:g}" y="{y:g}" width="{max(width, 0):g}" height="{height:g}" rx="{radius}" fill="{fill}"/>'
        )

    def text(self, x: float, y: float, text: str, *, size: int = 15, fill: str = _INK, bold: bool = False) -> None:
        weight = ' font-weight="600"' if bold else ""
        content = _as_svg_text(_NOT_XML.sub("\ufffd", text))
        self.elements.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{weight}>{content}</text>')


def draw_comparison(comparison: Comparison, *, samples: int = 5) -> str:
    """Return an SVG: the emoji rates of each side as bars, then the first prompts with the replies side by side."""
    canvas = _Canvas()
    count = comparison.base.measures.replies
    canvas.text(_MARGIN, canvas.y + 18, f"Replies with an emoji, {count} prompts", size=20, bold=True)
    canvas.y += 40
    for side in comparison.sides():
        _draw_bars(canvas, side)
    canvas.y += 14
    for index, prompt in enumerate(comparison.prompts[:samples]):
        _draw_sample(canvas, prompt.text, [(side, side.replies[index].text) for side in comparison.sides()])
    height = canvas.y + _MARGIN - 10
    title = escape("; ".join(f"{side.name}: {_rates_in_words(side.measures)}" for side in comparison.sides()))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:g}" '
            f'viewBox="0 0 {_WIDTH} {height:g}" font-family="{_FONT}" role="img">',
            f"<style>.emoji {{ font-family: {_EMOJI_FONT}; }}</style>",
            f"<title>Replies with an emoji: {title}</title>",
            f'<rect width="{_WIDTH}" height="{height:g}" fill="#ffffff"/>',
            *canvas.elements,
            "</svg>\n",
        ]
    )


def _as_svg_text(text: str) -> str:
    """Escape text, and ask for an emoji font where there are emojis: text fonts have some of them in black only."""
    parts, position = [], 0
    for span in find_emojis(text):
        parts.append(escape(text[position : span.start]))
        parts.append(f'<tspan class="emoji">{span.text}</tspan>')
        position = span.end
    return "".join([*parts, escape(text[position:])])


def _rates(measures: Measures) -> list[tuple[str, float]]:
    """Return the rates to show, with labels: in and out of place where the prompts say so, else the one of all."""
    placed = [("in place", measures.in_place_rate), ("out of place", measures.out_of_place_rate)]
    return [(label, rate) for label, rate in placed if rate is not None] or [("", measures.emoji_rate)]


def _rates_in_words(measures: Measures) -> str:
    return ", ".join(f"{label} {100 * rate:.1f} %".strip() for label, rate in _rates(measures))


def _draw_bars(canvas: _Canvas, side: Side) -> None:
    colour, pale = _COLOURS[side.name]
    end = _MARGIN + 470
    for number, (label, rate) in enumerate(_rates(side.measures)):
        left = _MARGIN + (170 if label else 70)
        if number == 0:
            canvas.text(_MARGIN, canvas.y + 19, side.name, bold=True)
            canvas.text(end + 90, canvas.y + 19, _facts(side.measures), size=13, fill=_QUIET)
        if label:
            canvas.text(_MARGIN + 70, canvas.y + 19, label, size=13, fill=_QUIET)
        canvas.box(left, canvas.y, end - left, 28, pale, 6)
        canvas.box(left, canvas.y, (end - left) * rate, 28, colour, 6)
        canvas.text(end + 14, canvas.y + 19, f"{100 * rate:.1f} %", bold=True)
        canvas.y += 34
    canvas.y += 4


def _facts(measures: Measures) -> str:
    facts = f"{measures.mean_emojis:.2f} emojis per reply, at most {measures.max_emojis}"
    return facts if measures.perplexity is None else f"{facts}; perplexity {measures.perplexity:.1f}"


def _draw_sample(canvas: _Canvas, prompt: str, replies: list[tuple[Side, str]]) -> None:
    lines = wrap_text(prompt, _WIDTH - 2 * _MARGIN, 15)[:3]
    for line in lines:
        canvas.y += _LINE
        canvas.text(_MARGIN, canvas.y, line, bold=True)
    canvas.y += 10
    width = (_WIDTH - 2 * _MARGIN - _GAP * (len(replies) - 1)) / len(replies)
    wrapped = [wrap_text(text or "(empty)", width - 28, 15)[:8] for _, text in replies]
    height = 16 + _LINE * (max(map(len, wrapped)) + 1)
    for column, ((side, text), reply_lines) in enumerate(zip(replies, wrapped, strict=True)):
        colour, pale = _COLOURS[side.name]
        x = _MARGIN + column * (width + _GAP)
        canvas.box(x, canvas.y, width, height, pale)
        emojis = count_emojis(text)
        label = f"{side.name}, {emojis} emoji{'' if emojis == 1 else 's'}"
        canvas.text(x + 14, canvas.y + 20, label, size=12, fill=colour, bold=True)
        for number, line in enumerate(reply_lines, start=1):
            canvas.text(x + 14, canvas.y + 20 + number * _LINE, line)
    canvas.y += height + 12


def wrap_text(text: str, width: float, size: int) -> list[str]:
    """Break text into lines of about `width` pixels; SVG does not wrap by itself."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _text_width(longer, size) <= width:
            lines[-1] = longer
            continue
        pieces = _cut(word, width, size)
        lines[-1:] = [lines[-1], *pieces] if lines[-1] else pieces
    return lines


def _cut(word: str, width: float, size: int) -> list[str]:
    """Cut a word that fits no line, between graphemes; others stay whole."""
    pieces = [""]
    for grapheme in regex.findall(r"\X", word):
        if pieces[-1] and _text_width(pieces[-1] + grapheme, size) > width:
            pieces.append("")
        pieces[-1] += grapheme
    return pieces


def _text_width(text: str, size: int) -> float:
    """Estimate a width in pixels: wide characters are about as wide as high, others half of it."""
    units = sum(
        0.0 if unicodedata.combining(letter) or letter in "\u200d\ufe0f" else 1.3 if _is_wide(letter) else 0.53
        for letter in text
    )
    return units * size


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF"
