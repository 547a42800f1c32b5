"""Implements `--mode=predict --prompt=TEXT`: continues a text by a trained language model."""

from __future__ import annotations

import json
import os

from engine.assembly.trained import TrainedModel
from engine.logging.progress import Progress
from engine.runtime.atomic_files import replace_file
from engine.runtime.signals import Signals
from engine.serving.sampling import Sampler, SamplingOptions


def run(trained: TrainedModel, signals: Signals) -> int:
    """Prints the text of `--prompt` with its continuations, and writes them.

    Writes samples.txt and samples.json into the directory of the predictions. After a signal, no
    file is written.

    Args:
      trained: a trained language model.
      signals: received signals.

    Returns:
      The exit status: 0, or 128 + the number of a received signal.

    Raises:
      ValueError: if the model is not one of a text, or the prompt cannot be used; see `Sampler`.
      OSError: if a file cannot be written.
    """
    config = trained.config
    asked = config.serving
    options = SamplingOptions(asked.temperature, asked.sample_top_k, asked.sample_seed)
    sampler = Sampler(trained)
    progress = Progress(config.logging.progress, "sampling", asked.sample_tokens, unit="tokens")

    def advance() -> bool:
        progress.advance(1)
        return bool(signals.received)

    found = sampler.continuations(
        asked.prompt, asked.samples, asked.sample_tokens, options, advance
    )
    progress.close()
    texts = [asked.prompt + each for each in found]
    separator = "\n" + "-" * 80 + "\n"
    print(separator.join(texts))
    if signals.received:
        return signals.exit_status
    folder = asked.predictions or os.path.join(config.run.run_dir, "predictions")
    os.makedirs(folder, exist_ok=True)
    content = {
        "prompt": asked.prompt,
        "continuations": found,
        **options._asdict(),
        "weights": trained.description,
    }
    replace_file(os.path.join(folder, "samples.json"), json.dumps(content, indent=1) + "\n")
    replace_file(os.path.join(folder, "samples.txt"), separator.join(texts) + "\n")
    print(f"samples: {folder}/samples.txt and .json", flush=True)
    print(json.dumps({"samples": len(found), "tokens": asked.sample_tokens}))
    return 0
