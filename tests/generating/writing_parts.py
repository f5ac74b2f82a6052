"""What the tests of writers share: the scripted endpoint, and a real small model that writes words and emojis.

Loaded by path, because the tests are no package.
"""

from pathlib import Path

from tests.chat_server import Answer, ChatServer, serve_chat, two_sided

__all__ = ["Answer", "ChatServer", "save_writer", "serve_chat", "two_sided"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|> ' + message['role'] + ' ' + message['content'] + ' <|im_end|> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|> assistant ' }}{% endif %}"
)
WORDS = ["user", "assistant", "system", "you", "are", "fine", "the", "day", "is", "good", "so", "well", "done"]
EMOJIS = ["🎉", "👍🏽", "❤️", "🇫🇷"]


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
