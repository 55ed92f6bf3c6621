"""Text -> speech through espeak-ng, in a process of its own that is run as a script.

The library keeps counters between utterances (its pitch flutter, its gain) that no call resets, so an utterance's
samples depend on those before it. A fresh process that says a list in order gives the same bytes every time, whatever
was said before; it also keeps C code out of the caller. The process imports nothing but the standard library and
`espeakng_loader`.

    standard input    JSON: [[text, voice, words per minute, pitch 0-99], ...]
    standard output   for each: the number of samples (uint32), then 16-bit samples, both little-endian
"""

from __future__ import annotations

import array
import ctypes
import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence

RATE = 22_050
"""Samples per second of espeak-ng's voices."""

Utterance = tuple[str, str, int, int]
"""Text, voice, words per minute, pitch."""

SYNCHRONOUS, DONT_EXIT, UTF8 = 2, 0x8000, 1
SPEED, PITCH = 1, 3


def synthesise(utterances: Sequence[Utterance]) -> list[bytes]:
    """Returns each utterance's 16-bit little-endian samples, mono, at `RATE`.

    Raises:
        RuntimeError: espeak-ng failed; with what it said.
    """
    command = [sys.executable, "-P", __file__]
    done = subprocess.run(command, input=json.dumps(utterances).encode(), capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"espeak-ng failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return list(_unpack(done.stdout))


def _unpack(stream: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(stream):
        (samples,) = struct.unpack_from("<I", stream, at)
        yield stream[at + 4 : at + 4 + 2 * samples]
        at += 4 + 2 * samples


def _speak(utterances: Sequence[Utterance]) -> Iterator[bytes]:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    if library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), DONT_EXIT) != RATE:
        raise RuntimeError(f"espeak-ng does not start, or not at {RATE} samples a second")
    samples = array.array("h")

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def listen(wave, count, events) -> int:
        if wave and count > 0:
            samples.frombytes(ctypes.string_at(wave, 2 * count))
        return 0

    library.espeak_SetSynthCallback(listen)
    for text, voice, speed, pitch in utterances:
        del samples[:]
        if library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")
        library.espeak_SetParameter(SPEED, speed, 0)
        library.espeak_SetParameter(PITCH, pitch, 0)
        data = text.encode()
        if library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, UTF8, None, None):
            raise RuntimeError(f"espeak-ng cannot say {text!r}")
        if sys.byteorder == "big":
            samples.byteswap()
        yield struct.pack("<I", len(samples)) + samples.tobytes()


if __name__ == "__main__":
    for spoken in _speak(json.load(sys.stdin.buffer)):
        sys.stdout.buffer.write(spoken)
