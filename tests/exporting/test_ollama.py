"""The Modelfile: its template is what the chat template writes, in Go's words."""

from pathlib import Path
from typing import Any

import pytest

from orpo.chat_model.chat_template import render_prompt
from orpo.command.errors import ExportError
from orpo.export import main
from orpo.exporting.ollama import make_modelfile, template_parts
from orpo.records.messages import Message
from tests import small_models

CHATML_WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind \"always\"<|im_end|>\n' }}{% endif %}"
    + small_models.CHATML
)
HEADERS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|x|>\n\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|x|>\n\n' }}{% endif %}"
)
CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "Hello\n\nyou"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ .Hello }}"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    ],
]


@pytest.mark.parametrize("template", [small_models.CHATML, CHATML_WITH_DEFAULT, HEADERS])
def test_conversations_come_out_of_the_parts_as_of_the_chat_template(template: str) -> None:
    tokenizer = small_models.make_tokenizer(template)
    parts = template_parts(tokenizer)
    for messages in CONVERSATIONS:
        assert parts.render(messages) == render_prompt(tokenizer, messages)


def test_bos_is_left_to_ollama_where_it_writes_one() -> None:
    tokenizer = small_models.make_tokenizer(small_models.WITH_BOS, adds_bos=True)
    assert "<|bos|>" not in template_parts(tokenizer).as_go_template()


def test_the_modelfile_as_it_is_written() -> None:
    """Every text stands in quotes and every action trims, so that no line break here is one in the prompt."""
    written = make_modelfile("it-f16.gguf", small_models.make_tokenizer(CHATML_WITH_DEFAULT), "it")
    assert (
        written
        == r'''# it, for: ollama create NAME --file Modelfile
FROM ./it-f16.gguf
TEMPLATE """{{- if not .System }}{{ "<|im_start|>system\nBe kind \"always\"<|im_end|>\n" }}{{ end -}}
{{- range .Messages -}}
{{- if eq .Role "system" }}
{{- "<|im_start|>system\n" }}{{ .Content }}{{ "<|im_end|>\n" -}}
{{- else if eq .Role "user" }}
{{- "<|im_start|>user\n" }}{{ .Content }}{{ "<|im_end|>\n" -}}
{{- else if eq .Role "assistant" }}
{{- "<|im_start|>assistant\n" }}{{ .Content }}{{ "<|im_end|>\n" -}}
{{- end -}}
{{- end -}}
{{- "<|im_start|>assistant\n" -}}"""
PARAMETER stop "<|im_end|>"
PARAMETER temperature 0.4
'''
    )


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}",
        small_models.CHATML.replace("message['content']", "message['content'] + message['role'][:1]"),
    ],
)
def test_a_template_that_is_no_sequence_of_turns_is_refused(template: str) -> None:
    with pytest.raises(ExportError, match="cannot be written for Ollama"):
        template_parts(small_models.make_tokenizer(template))


def test_the_export_holds_model_and_modelfile(adapter: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = ["--out", str(tmp_path / "out"), "--quantization", "q8_0", "--check-prompts", "2", "--check-tokens", "4"]
    assert main(["--to", "ollama", "--adapter", str(adapter), "--device", "cpu", *out]) == 0
    assert "FROM ./tuned-q8_0.gguf" in (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "tuned-q8_0.gguf").is_file()
