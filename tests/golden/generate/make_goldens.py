"""Writes the golden models of tests/golden: tiny Hugging Face folders and what PyTorch makes of them.

A development script: the tests read only what it wrote. Run with one thread so that the bytes repeat:

    OMP_NUM_THREADS=1 python tests/golden/generate/make_goldens.py tests/golden

Every family gets
    FAMILY/config.json, model.safetensors (or shards and their index)   random weights, bf16-exact
    FAMILY/adapter/            the PEFT adapter that the gradients belong to (r = 4, all 7 modules)
    FAMILY/expected.safetensors   see tests/golden/README.md
bf16-exact weights make one file serve fp32 and bf16 networks alike and halve its size.
"""

import copy
import hashlib
import json
import math
import os
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MistralConfig,
                          Qwen2Config, Qwen3Config)

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LENGTHS = [13, 7, 21]  # tokens of the three sequences
STEPS = 10

BASE = dict(vocab_size=96, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=128, rms_norm_eps=1e-5,
            initializer_range=0.2, bos_token_id=1, eos_token_id=2, attention_dropout=0.0)

FAMILIES = {
    "llama_tied": (LlamaConfig, dict(num_key_value_heads=4, tie_word_embeddings=True)),
    "llama_gqa": (LlamaConfig, dict(num_key_value_heads=2, tie_word_embeddings=False)),
    "llama_rope3": (LlamaConfig, dict(num_key_value_heads=2, tie_word_embeddings=True,
                                      rope_parameters=dict(rope_type="llama3", rope_theta=500.0,
                                                           factor=4.0, low_freq_factor=1.0,
                                                           high_freq_factor=4.0,
                                                           original_max_position_embeddings=32))),
    "llama_linear": (LlamaConfig, dict(num_key_value_heads=1, tie_word_embeddings=True,
                                       rope_parameters=dict(rope_type="linear", rope_theta=10000.0,
                                                            factor=2.0))),
    "qwen2": (Qwen2Config, dict(num_key_value_heads=2, tie_word_embeddings=True,
                                rms_norm_eps=1e-6, use_sliding_window=False)),
    "qwen3": (Qwen3Config, dict(num_key_value_heads=2, tie_word_embeddings=False, head_dim=16,
                                rms_norm_eps=1e-6)),
    "llama_sharded": (LlamaConfig, dict(num_key_value_heads=2, tie_word_embeddings=False)),
    # Windows shorter than two of the three sequences.
    "mistral": (MistralConfig, dict(num_key_value_heads=2, tie_word_embeddings=False,
                                    sliding_window=6)),
    "gemma3": (Gemma3TextConfig, dict(num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6,
                                      query_pre_attn_scalar=24, sliding_window=5,
                                      layer_types=["sliding_attention", "full_attention"],
                                      rope_parameters=dict(
                                          full_attention=dict(rope_type="linear", factor=8.0,
                                                              rope_theta=1e6),
                                          sliding_attention=dict(rope_type="default",
                                                                 rope_theta=100.0)))),
}
# The spelling of transformers 4, to be read like that of 5.
OLD_SPELLING = {"llama_rope3", "llama_gqa"}


def generator_hash():
    return hashlib.sha256(open(__file__, "rb").read()).hexdigest()


def random_weights(model, generator):
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.dim() == 1 and name.endswith("bias"):
                fresh = 0.3 * noise
            elif value.dim() == 1:
                fresh = (0.0 if model.config.model_type == "gemma3_text" else 1.0) + 0.2 * noise
            elif "embed" in name:
                fresh = 0.3 * noise
            else:
                fresh = noise / math.sqrt(value.shape[1])
            value.copy_(fresh.to(torch.bfloat16).float())


def random_adapter(model, generator):
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_A" in name:
                value.copy_(torch.randn(value.shape, generator=generator) / math.sqrt(value.shape[1]))
            elif "lora_B" in name:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))


def sequences(vocab, generator):
    out = []
    for length in LENGTHS:
        ids = torch.randint(3, vocab, (length,), generator=generator)
        mask = (torch.rand(length, generator=generator) < 0.6).int()
        mask[0] = 0
        mask[-1] = 1
        out.append((ids, mask))
    return out


def log_probabilities(model, batch):
    """Per sequence, unpadded and alone: the packed batch must agree with it."""
    logits, scored = [], []
    for ids, mask in batch:
        row = model(input_ids=ids[None]).logits[0, :-1]
        logits.append(row)
        picked = torch.log_softmax(row, -1).gather(1, ids[1:, None])[:, 0]
        scored.append(picked[mask[1:] > 0])
    return torch.cat(logits), torch.cat(scored)


def old_spelling(folder):
    path = os.path.join(folder, "config.json")
    config = json.load(open(path))
    rope = config.pop("rope_parameters", None)
    if rope:
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype", "bfloat16")
    json.dump(config, open(path, "w"), indent=2, sort_keys=True)


def write_model(model, folder, name):
    shard = "30KB" if name == "llama_sharded" else "5GB"
    # A copy: casting the model itself would round its rotary frequencies too.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    generation = os.path.join(folder, "generation_config.json")
    if os.path.exists(generation):
        os.remove(generation)
    if name in OLD_SPELLING:
        old_spelling(folder)


def plain_name(name):
    return name.replace(".default", "").replace("base_model.model.", "")


def train_curve(peft_model, batch):
    """AdamW on the loss over all scored tokens of the batch, clipped, constant rate."""
    losses, norms = [], []
    params = [p for p in peft_model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(params, lr=5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = -log_probabilities(peft_model, batch)[1].mean()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(params, 1.0).item())
        optimiser.step()
        losses.append(loss.item())
    return torch.tensor(losses), torch.tensor(norms)


def make_family(root, name, kind, changes, seed):
    folder = os.path.join(root, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    generator = torch.Generator().manual_seed(seed)
    config = kind(**{**BASE, **changes})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).float().eval()
    random_weights(model, generator)
    write_model(model, folder, name)
    batch = sequences(config.vocab_size, generator)
    expected = {
        "ids": torch.cat([ids for ids, _ in batch]).int().float(),
        "scored": torch.cat([mask for _, mask in batch]).float(),
        "lengths": torch.tensor(LENGTHS).float(),
    }
    with torch.no_grad():
        expected["base.logits"], expected["base.logprob"] = log_probabilities(model, batch)

    lora = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, lora_dropout=0.0, bias="none",
                      task_type="CAUSAL_LM")
    peft_model = get_peft_model(model, lora).eval()
    random_adapter(peft_model, generator)
    peft_model.save_pretrained(os.path.join(folder, "adapter"))
    os.remove(os.path.join(folder, "adapter", "README.md"))
    logits, scored = log_probabilities(peft_model, batch)
    loss = -scored.mean()
    loss.backward()
    expected["peft.logits"], expected["peft.logprob"] = logits.detach(), scored.detach()
    expected["peft.loss"] = loss.detach()[None]
    for key, value in peft_model.named_parameters():
        if value.requires_grad:
            expected["grad." + plain_name(key)] = value.grad.clone()
    losses, norms = train_curve(peft_model, batch)
    expected["curve.loss"], expected["curve.norm"] = losses, norms
    for key, value in peft_model.named_parameters():
        if value.requires_grad and ".layers.0." in key and "q_proj" in key:
            expected["curve.after." + plain_name(key)] = value.detach().clone()
    save_file({k: v.contiguous() for k, v in expected.items()},
              os.path.join(folder, "expected.safetensors"), metadata={"format": "pt", "generator": generator_hash()})
    for path, _, files in os.walk(folder):
        for file in files:
            os.chmod(os.path.join(path, file), 0o644)
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(folder) for f in fs)
    print(f"{name}: {size / 1024:.0f} KB, loss {loss.item():.4f} -> {losses[-1].item():.4f}")


def pin_adapter_config(root):
    """The base path and library versions would change the bytes from machine to machine."""
    for name in FAMILIES:
        path = os.path.join(root, name, "adapter", "adapter_config.json")
        config = json.load(open(path))
        config["base_model_name_or_path"] = "tests/golden/" + name
        config["target_modules"] = sorted(config["target_modules"])
        json.dump(config, open(path, "w"), indent=2, sort_keys=True)


def main():
    torch.set_num_threads(1)
    root = sys.argv[1] if len(sys.argv) > 1 else "tests/golden"
    for seed, (name, (kind, changes)) in enumerate(FAMILIES.items(), start=1):
        make_family(root, name, kind, changes, seed)
    pin_adapter_config(root)


if __name__ == "__main__":
    main()
