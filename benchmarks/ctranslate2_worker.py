"""CTranslate2's worker for `benchmarks.cpu_engine`; runs in an environment with ctranslate2 and transformers 4.

python ctranslate2_worker.py MODEL_FOLDER THREADS

MODEL_FOLDER contains a T5 and its tokenizer in transformers' format. Reads one JSON object with `tokens` and `steps`
per line and writes the decoding time in seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import ctranslate2  # type: ignore[import-not-found]  # not in our environment
from ctranslate2.converters import TransformersConverter  # type: ignore[import-not-found]  # likewise

NUM_BEAMS = 20


def main(folder: Path, num_threads: int) -> None:
    converted = folder.with_name(f"{folder.name}-ctranslate2")
    if not converted.exists():
        TransformersConverter(str(folder)).convert(str(converted), quantization="int8")
    translator = ctranslate2.Translator(str(converted), compute_type="int8", inter_threads=1, intra_threads=num_threads)
    print(json.dumps({"compute_type": translator.compute_type, "version": ctranslate2.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        (result,) = translator.translate_batch(
            [request["tokens"]],
            beam_size=NUM_BEAMS,
            num_hypotheses=NUM_BEAMS,
            max_decoding_length=request["steps"],
            return_scores=True,
        )
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "longest": max(map(len, result.hypotheses))}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
