"""A real Whisper writes down what a speech synthesiser says, whichever engine hears it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import real_model

from .conftest import ENGINES

SENTENCES = (
    "The weather is nice today and we are going to the park.",
    "She opened the window and looked at the garden.",
    "My brother works in a large hospital near the river.",
    "Please close the door when you leave the room.",
    "The train to the city leaves early in the morning.",
    "We had bread and butter with some cheese for breakfast.",
    "The children are playing with a small red ball.",
    "He forgot his keys on the kitchen table.",
    "There is a book about history on the top shelf.",
    "The doctor said that she should drink more water.",
    "I would like to know how the story ends.",
    "A black cat is sleeping under the old chair.",
    "They walked slowly along the beach at night.",
    "The teacher wrote the question on the board.",
    "It takes about one hour to get to the station.",
    "You can find the answer in the last chapter.",
    "The market was full of people and music.",
    "Our neighbors have a big dog and a green house.",
    "The farmer planted apples and pears last summer.",
    "Nobody knew what had happened to the letter.",
)
MOST_WRONG = 0.1


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    """All sentences in one sound, longer than the model hears at once."""
    file = tmp_path_factory.mktemp("speech") / "spoken.wav"
    script = Path(real_model.__file__).with_name("speech.py")
    subprocess.run([sys.executable, str(script), str(file), *SENTENCES], check=True, timeout=60)
    return file


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def errors(said: list[str], heard: list[str]) -> int:
    """Words put in, left out or changed, the fewest that explain what was heard (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(heard, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != other))
    return row[-1]


@pytest.mark.engines
@pytest.mark.parametrize("engine", ENGINES)
def test_at_most_one_word_in_ten_is_heard_wrong(engine, load, spoken):
    output = load(engine, real_model.ensure("whisper")).run(spoken.read_bytes(), {})
    said = words(" ".join(SENTENCES))
    wrong = errors(said, words(output.value["text"]))
    print(f"{engine}: {wrong} of {len(said)} words wrong, {output.counts['audio_ms']} ms of speech")
    assert wrong <= MOST_WRONG * len(said)


def test_errors_are_counted_as_words_changed_put_in_or_left_out():
    said = words("the cat sat on the mat")
    heard = {"The cat sat on the mat.": 0, "the bat sat on the mat": 1, "cat sat on the mat mat": 2, "": 6}
    assert {text: errors(said, words(text)) for text in heard} == heard
