"""Speaks English text into a WAV file with eSpeak NG, so that there is speech whose words are known.

    python scripts/speech.py FILE.wav TEXT [...]

A second of silence follows each text. The library comes out of the PyPI package `espeakng-loader`; it runs in this
process of its own, because it keeps its state in global variables and its callback cannot raise.
"""

from __future__ import annotations

import ctypes
import sys
import wave
from collections.abc import Sequence

import espeakng_loader

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback, within the call
_UTF8 = 1
_SPEED, _WORDS_A_MINUTE = 1, 150
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(texts: Sequence[str]) -> tuple[bytes, int]:
    """Samples, 16 bits each, one channel, and how many of them make a second. Raises RuntimeError."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate <= 0 or library.espeak_SetVoiceByName(b"en"):
        raise RuntimeError("eSpeak NG does not find its data")
    library.espeak_SetParameter(_SPEED, _WORDS_A_MINUTE, 0)
    spoken = bytearray()

    def take(samples: ctypes._Pointer[ctypes.c_short], count: int, _: int) -> int:
        if samples and count > 0:
            spoken.extend(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(take)  # kept as long as the library may call it
    library.espeak_SetSynthCallback(callback)
    for text in texts:
        said = text.encode()
        if library.espeak_Synth(said, len(said) + 1, 0, 1, 0, _UTF8, None, None):
            raise RuntimeError(f"eSpeak NG does not speak {text!r}")
        spoken.extend(bytes(2 * rate))
    return bytes(spoken), rate


def main() -> None:
    samples, rate = speak(sys.argv[2:])
    with wave.open(sys.argv[1], "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)


if __name__ == "__main__":
    main()
