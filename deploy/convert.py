"""Turns the small model's GGUF into what vLLM and the trainer read: bf16 safetensors, tokenizer and chat template.

Run as `python -m deploy.convert GGUF FOLDER`, a process of its own: only it needs torch, and it gives the memory back.
transformers dequantises a GGUF when it loads it but refuses to save the result, hence the copy into a fresh model.
"""

import sys
from pathlib import Path


def convert(gguf: Path, folder: Path) -> None:
    """Write the model to `folder`, which must exist."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    source = str(gguf.parent)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf.name)
    quantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in quantized.state_dict().items()}
    model.load_state_dict(weights)
    model.tie_weights()
    model.config._name_or_path = ""  # noqa: SLF001  # else the folder of this machine is written into the model
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
