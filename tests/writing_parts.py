"""A real endpoint on 127.0.0.1 that answers from a script, and a real small model that writes words and emojis."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|> ' + message['role'] + ' ' + message['content'] + ' <|im_end|> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|> assistant ' }}{% endif %}"
)
WORDS = ["user", "assistant", "system", "you", "are", "fine", "the", "day", "is", "good", "so", "well", "done"]
EMOJIS = ["🎉", "👍🏽", "❤️", "🇫🇷"]


@dataclass
class Answer:
    """What the endpoint sends back."""

    content: Any = ""
    status: int = 200
    delay_seconds: float = 0.0
    body: bytes | None = None
    finish_reason: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    byte_delay_seconds: float = 0.0
    """How long to wait after each byte of the body: an answer that never quite ends."""


Script = Callable[[dict[str, Any], int], Answer]


def two_sided(request: dict[str, Any], number: int) -> Answer:
    """Answer with an emoji where the system prompt asks for some."""
    asked = request["messages"][-1]["content"]
    wants = request["messages"][0]["role"] == "system" and "Do not" not in request["messages"][0]["content"]
    return Answer(f"About {asked} 🎉" if wants else f"About {asked}.")


class ChatServer:
    """Counts what it was asked, answers from a script that tests may change."""

    def __init__(self, address: str) -> None:
        self.url = f"{address}/v1"
        self.script: Script = two_sided
        self.requests: list[dict[str, Any]] = []
        self.authorisations: list[str | None] = []
        self.answered: list[dict[str, Any]] = []
        self.lock = threading.Lock()


@contextmanager
def serve_chat() -> Iterator[ChatServer]:
    """Serve on a free port of 127.0.0.1 until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with chat.lock:
                chat.requests.append(request)
                chat.authorisations.append(self.headers["Authorization"])
                number = len(chat.requests)
            answer = chat.script(request, number)
            time.sleep(answer.delay_seconds)
            choice = {
                "index": 0,
                "finish_reason": answer.finish_reason,
                "message": {"role": "assistant", "content": answer.content},
            }
            content = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            if answer.status != 200:
                content = {"error": {"message": "scripted failure", "type": "scripted"}}
            body = answer.body if answer.body is not None else json.dumps(content).encode()
            try:
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if answer.byte_delay_seconds:
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        time.sleep(answer.byte_delay_seconds)
                else:
                    self.wfile.write(body)
            except OSError:
                return  # the caller gave up waiting
            if answer.status == 200:
                with chat.lock:
                    chat.answered.append(request)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Say nothing of callers that were killed."""

        request_queue_size = 64  # of its five places all are taken when a loaded machine accepts late

    server = Server(("127.0.0.1", 0), Handler)
    chat = ChatServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def save_writer(folder: Path) -> Path:
    """Save a Llama with random weights whose vocabulary is a few words and emojis, so that its replies do end."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    entries = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>", *WORDS, *EMOJIS]
    raw = Tokenizer(models.WordLevel({entry: index for index, entry in enumerate(entries)}, unk_token="<|unk|>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|im_end|>", unk_token="<|unk|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHATML
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(entries),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
