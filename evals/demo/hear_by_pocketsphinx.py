"""What pocketsphinx hears in WAV files, as a JSON list: `python hear_by_pocketsphinx.py SITE FILE...`. It lies in a
folder of its own, since it is no part of this package's environment."""

from __future__ import annotations

import json
import sys

sys.path.insert(0, sys.argv[1])

import numpy as np
import pocketsphinx
import soundfile
import soxr

heard = []
for name in sys.argv[2:]:
    sound, rate = soundfile.read(name, dtype="float32")
    samples = (soxr.resample(sound, rate, 16_000) * 32_767).astype(np.int16)
    decoder = pocketsphinx.Decoder(samprate=16_000, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    heard.append(decoder.hyp().hypstr if decoder.hyp() else "")
print(json.dumps(heard))
