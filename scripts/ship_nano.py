"""Put pre-trained weights of nano into the package, as int8 with one scale a row.

    python scripts/ship_nano.py outputs/nano

Prints the size and what the rounding costs. The model card beside the weights is written by hand.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from xray_vqa.modeling.loading import CARD_NAME, NANO_DIR, read_card, write_card
from xray_vqa.modeling.quantized import save_quantized

LIMIT_MB = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the output folder of the pre-training")
    source: Path = parser.parse_args().weights
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    state = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}  # tied
    error = save_quantized(state, NANO_DIR)
    model.config.save_pretrained(NANO_DIR)
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "preprocessor_config.json",
    ):
        shutil.copyfile(source / name, NANO_DIR / name)
    card = read_card(source)
    assert card is not None, f"{source} has no {CARD_NAME}"
    write_card(NANO_DIR, card)  # last: it names the digests of the others
    size_mb = sum(path.stat().st_size for path in NANO_DIR.iterdir()) / 2**20
    print(f"{NANO_DIR}: {size_mb:.1f} MiB, largest relative error of a matrix {error:.4f}")
    if size_mb > LIMIT_MB:
        raise SystemExit(f"error: more than {LIMIT_MB} MiB")


if __name__ == "__main__":
    main()
