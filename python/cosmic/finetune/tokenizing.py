"""Text to blocks of token ids, once a comparison."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cosmic.finetune.corpus import Corpus
from cosmic.finetune.errors import UsageError
from cosmic.finetune.tokens import Blocks, TokenFolder

END = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # every byte, and END


def write_tokens(
    folder: Path, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, block_size: int
) -> TokenFolder:
    """Tokenize and pack a corpus into `folder`, which appears complete or not at all.

    Raises:
        UsageError: not one block of training or of validation text.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {"vocabulary": len(tokenizer)}
    for name, documents in (("train", corpus.train), ("validation", corpus.validation)):
        blocks = pack(encode(documents, tokenizer, corpus.separate), block_size)
        if not len(blocks):
            shutil.rmtree(partial)
            raise UsageError(
                f"the {name} text is shorter than one block of {block_size} tokens; "
                f"give more text or a smaller --block-size"
            )
        np.save(partial / f"{name}.npy", blocks)
        counts |= {f"{name}_documents": len(documents), f"{name}_tokens": blocks.size}
    tokenizer.save_pretrained(partial / "tokenizer")
    (partial / "tokens.json").write_text(json.dumps(counts))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return TokenFolder(folder=folder, **counts)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocabulary` entries.

    Raises:
        UsageError: `vocabulary` cannot hold every byte.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        raise UsageError(
            f"the model's vocabulary of {vocabulary} cannot hold a byte-level tokenizer; "
            f"it takes at least {SMALLEST_VOCABULARY}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END)


def encode(
    documents: datasets.Dataset, tokenizer: PreTrainedTokenizerFast, separate: bool = True
) -> NDArray[np.int32]:
    """All documents as one stream of ids; `separate`: the end-of-text id after each of them."""
    end = [tokenizer.eos_token_id] if separate and tokenizer.eos_token_id is not None else []
    stream = [np.empty(0, np.int32)]
    for batch in documents.iter(batch_size=256):
        texts = [text for text in batch["text"] if text]
        if texts:
            encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            stream += [np.asarray(ids + end, np.int32) for ids in encoded]
    return np.concatenate(stream)


def pack(stream: NDArray[np.int32], block_size: int) -> Blocks:
    """Cut a stream into whole blocks; what is left at the end is dropped."""
    count = len(stream) // block_size
    return stream[: count * block_size].reshape(count, block_size)
