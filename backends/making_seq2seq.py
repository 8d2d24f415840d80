"""Makes small models that read and write, Whisper and T5, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

_LANGUAGES: Final = ("en", "fr")


def make_whisper(folder: Path) -> Any:
    """One that knows two languages, and hears two seconds at once."""
    import transformers

    named = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{each}|>" for each in _LANGUAGES),
             "<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|notimestamps|>"]  # fmt: skip
    tokenizer, vocabulary = _tokenizer(named, eos="<|endoftext|>", first=False)
    place = tokenizer.convert_tokens_to_ids
    small = {"decoder_layers": 2, "encoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    end = place("<|endoftext|>")
    config = transformers.WhisperConfig(
        vocab_size=vocabulary, num_mel_bins=80, d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, **small,
        max_source_positions=100, max_target_positions=64, init_std=0.4,
        decoder_start_token_id=place("<|startoftranscript|>"),
        bos_token_id=end, eos_token_id=end, pad_token_id=end, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=place("<|startoftranscript|>"), bos_token_id=end, eos_token_id=end, pad_token_id=end,
        no_timestamps_token_id=place("<|notimestamps|>"), is_multilingual=True, max_length=64,
        lang_to_id={f"<|{each}|>": place(f"<|{each}|>") for each in _LANGUAGES},
        task_to_id={each: place(f"<|{each}|>") for each in ("transcribe", "translate")},
        prev_sot_token_id=place("<|startofprev|>"), return_timestamps=False, max_initial_timestamp_index=50,
        suppress_tokens=[20, 21], begin_suppress_tokens=[30, end],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=2).save_pretrained(folder)
    return model


def make_t5(folder: Path) -> Any:
    import transformers

    tokenizer, vocabulary = _tokenizer(["<pad>", "</s>", "<unk>"], eos="</s>", first=True)
    config = transformers.T5Config(
        vocab_size=vocabulary + 5, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_decoder_layers=2, num_heads=4,
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, initializer_factor=4.0,
        task_specific_params={"summarization": {"prefix": "summarize: "}},
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return transformers.T5ForConditionalGeneration(config)


def _tokenizer(named: list[str], *, eos: str, first: bool) -> tuple[Any, int]:
    """A byte-level tokenizer and how many tokens it knows.

    T5 has its named tokens `first`, and one of them at the end of each text; Whisper has them behind the others, as
    all that come after them are times.
    """
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*named, *letters] if first else [*letters, *named]
    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, []))
    tokenizer.add_special_tokens([AddedToken(each, special=True) for each in named])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if first:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {eos}", special_tokens=[(eos, named.index(eos))]
        )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, pad_token=named[0], unk_token=named[-1]
    )
    return fast, len(pieces)
