"""Checks that adapters pass between Meed and PEFT both ways and mean the same.

A development script, not a test of the suite (it needs torch, transformers and peft):

    python tests/golden/generate/check_peft.py build/meed examples/tiny/model \
        examples/tiny/clients/bank.jsonl

Each case makes an adapter with PEFT, compares `meed logits` with PyTorch's fp32 logits, lets
`meed train` start from it and write it out again, and compares what PEFT makes of the result: its
logits with Meed's, and its tensors and configuration with what PEFT itself would have saved.
"""

import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "plain": dict(r=8, lora_alpha=16, target_modules=ALL),
    "q and v": dict(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"]),
    "rslora": dict(r=6, lora_alpha=9, use_rslora=True, target_modules=["o_proj", "down_proj"]),
    "mixed": dict(r=4, lora_alpha=10, target_modules=["q_proj", "up_proj"],
                  rank_pattern={"q_proj": 2, "model.layers.1.mlp.up_proj": 7},
                  alpha_pattern={"model.layers.0.self_attn.q_proj": 3}),
    "one layer": dict(r=3, lora_alpha=6, target_modules=["k_proj"], layers_to_transform=[1]),
}
IDS = [5, 90, 17, 300, 41, 7, 1200, 63, 8, 2000, 77, 12]
BOUND = 2e-5  # of the largest logit: fp32 sums in another order


def run(*command):
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def meed_logits(meed, model, adapter, folder):
    ids, out = os.path.join(folder, "ids.json"), os.path.join(folder, "logits.safetensors")
    json.dump(IDS, open(ids, "w"))
    run(meed, "logits", "--model", model, "--adapter", adapter, "--ids", ids, "--out", out)
    return load_file(out)["logits"]


def base(model):
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def torch_logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits[0]


def difference(x, y):
    return ((x - y).abs().max() / y.abs().max()).item()


def check(meed, model, data, name, settings, folder):
    theirs, ours = os.path.join(folder, "theirs"), os.path.join(folder, "ours")
    torch.manual_seed(1)
    peft_model = get_peft_model(base(model), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for key, value in peft_model.named_parameters():
            if "lora_B" in key:
                value.copy_(0.05 * torch.randn(value.shape))
    peft_model.save_pretrained(theirs)
    in_error = difference(meed_logits(meed, model, theirs, folder), torch_logits(peft_model))

    run(meed, "train", "--model", model, "--data", data, "--adapter", theirs, "--out", ours,
        "--steps", "5", "--lr", "0.01", "--warmup", "0", "--dtype", "f32", "--quiet")
    loaded = PeftModel.from_pretrained(base(model), ours).eval()
    out_error = difference(meed_logits(meed, model, ours, folder), torch_logits(loaded))

    again = os.path.join(folder, "again")
    loaded.save_pretrained(again)
    x = load_file(os.path.join(ours, "adapter_model.safetensors"))
    y = load_file(os.path.join(again, "adapter_model.safetensors"))
    same = x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    moved = difference(meed_logits(meed, model, ours, folder), torch_logits(peft_model)) > 1e-3
    text = open(os.path.join(ours, "adapter_config.json")).read()
    shaped = text == json.dumps(json.loads(text), indent=2, sort_keys=True)
    print(f"{name:10} PEFT to Meed {in_error:.1e}   Meed to PEFT {out_error:.1e}   "
          f"tensors kept {same}   trained {moved}   JSON as PEFT's {shaped}")
    return in_error < BOUND and out_error < BOUND and same and moved and shaped


def main():
    meed, model, data = sys.argv[1:4]
    good = True
    for name, settings in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            good &= check(meed, model, data, name, settings, folder)
    sys.exit(0 if good else "the two disagree")


if __name__ == "__main__":
    main()
