"""Makes models that read and write, Whisper and T5, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .making_shapes import TINY, shape_of
from .making_tokenizers import byte_tokenizer, filled, letters

_LANGUAGES: Final = ("en", "fr")
_SECOND: Final = 50  # states that the encoder makes of one
_TIMES: Final = 1501  # from 0 to 30 s in steps of 20 ms
#: T5's weights have rows for more tokens than its tokenizer knows.
_UNKNOWN: Final = {TINY: 5, "reference": 28}


def make_whisper(folder: Path, size: str = TINY) -> Any:
    """One that knows two languages; a tiny one hears two seconds at once."""
    import transformers

    named = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{each}|>" for each in _LANGUAGES),
             "<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|notimestamps|>"]  # fmt: skip
    shape = shape_of(
        "whisper", size, d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, decoder_layers=2, encoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, max_source_positions=100, max_target_positions=64,
        init_std=0.4, vocab_size=0,
    )  # fmt: skip
    # The named ones come behind the others, as all that come after them are times.
    pieces = [*filled(letters(), shape["vocab_size"] - _TIMES - len(named)), *named]
    tokenizer = _fast(byte_tokenizer(pieces, named), eos="<|endoftext|>", pad=named[0], unk=named[-1])
    shape["vocab_size"] = max(shape["vocab_size"], len(pieces))
    place = pieces.index
    end, start = place("<|endoftext|>"), place("<|startoftranscript|>")
    ends = {"decoder_start_token_id": start, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    config = transformers.WhisperConfig(
        num_mel_bins=80, **shape, **ends, suppress_tokens=None, begin_suppress_tokens=None
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        **ends, no_timestamps_token_id=place("<|notimestamps|>"), is_multilingual=True,
        max_length=shape["max_target_positions"],
        lang_to_id={f"<|{each}|>": place(f"<|{each}|>") for each in _LANGUAGES},
        task_to_id={each: place(f"<|{each}|>") for each in ("transcribe", "translate")},
        prev_sot_token_id=place("<|startofprev|>"), return_timestamps=False, max_initial_timestamp_index=50,
        suppress_tokens=[20, 21], begin_suppress_tokens=[30, end],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    seconds = shape["max_source_positions"] // _SECOND
    transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=seconds).save_pretrained(folder)
    return model


def make_t5(folder: Path, size: str = TINY) -> Any:
    import transformers
    from tokenizers import processors

    named = ["<pad>", "</s>", "<unk>"]
    shape = shape_of(
        "t5", size, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_decoder_layers=2, num_heads=4, vocab_size=0,
        initializer_factor=4.0,
    )  # fmt: skip
    pieces = filled([*named, *letters()], shape["vocab_size"] - _UNKNOWN[size])
    shape["vocab_size"] = len(pieces) + _UNKNOWN[size]
    tokenizer = byte_tokenizer(pieces, named)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config = transformers.T5Config(
        **shape, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
        task_specific_params={"summarization": {"prefix": "summarize: "}},
    )  # fmt: skip
    _fast(tokenizer, eos="</s>", pad="<pad>", unk="<unk>").save_pretrained(folder)
    return transformers.T5ForConditionalGeneration(config)


def _fast(tokenizer: Any, *, eos: str, pad: str, unk: str) -> Any:
    import transformers

    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=pad, unk_token=unk)
