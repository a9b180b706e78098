"""PyTorch and PEFT on the shapes of bench/suite_train.c, suite_coalitions.c and suite_synthesis.c.

Development only; bench/run calls it after Meed's own suites, with the same thread count, and it
prints Meed's rate over the peer's. The peer is given every advantage that its users have: fixed
sequence lengths (no padding), the faster of fp32 and bf16, adapters in the model's dtype as well as
PEFT's default, one warm-up. The numbers of Meed are read from the JSON that meed_bench wrote.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

TINY = dict(hidden_size=192, intermediate_size=512, num_hidden_layers=5, num_attention_heads=6,
            num_key_value_heads=2, head_dim=32, vocab_size=2048)
SMOLLM = dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
              num_key_value_heads=3, head_dim=64, vocab_size=49152)
QWEN = dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
            num_key_value_heads=2, head_dim=64, vocab_size=151936)
LLAMA_1B = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                num_attention_heads=32, num_key_value_heads=8, head_dim=64, vocab_size=128256)
SEQUENCE = 128
DEVICE = "cpu"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_model(shape, dtype):
    config = LlamaConfig(max_position_embeddings=512, tie_word_embeddings=True, **shape)
    torch.manual_seed(1)
    return LlamaForCausalLM(config).to(dtype).to(DEVICE)


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def median_seconds(step, turns):
    step()
    wait()
    taken = []
    for _ in range(turns):
        start = time.perf_counter()
        step()
        wait()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def train_rate(shape, dtype, batch, adapters_follow, turns, compiled=False):
    """Tokens a second of one LoRA step (forward, backward, clip, AdamW) at batch x SEQUENCE."""
    model = make_model(shape, dtype)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora, autocast_adapter_dtype=not adapters_follow)
    if adapters_follow:
        model = model.to(dtype)
    if compiled:
        model = torch.compile(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    ids = torch.randint(0, shape["vocab_size"], (batch, SEQUENCE), device=DEVICE)

    def step():
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return batch * SEQUENCE / median_seconds(step, turns)


def coalition_seconds(dtype, coalitions=64, clients=6, sequences=64, length=96):
    """Scores merged models one by one: fold the members' deltas into W, forward, log p."""
    model = make_model(TINY, dtype).eval()
    ids = torch.randint(0, TINY["vocab_size"], (sequences, length), device=DEVICE)
    linears = [m for n, m in model.named_modules() if n.split(".")[-1] in TARGETS]
    base = [m.weight.detach().clone() for m in linears]
    factors = [[(torch.randn(8, w.shape[1], device=DEVICE) * 0.02,
                 torch.randn(w.shape[0], 8, device=DEVICE) * 0.02)
                for w in base] for _ in range(clients)]
    wait()
    start = time.perf_counter()
    with torch.no_grad():
        for mask in range(coalitions):
            for i, linear in enumerate(linears):
                delta = base[i].float()
                for k in range(clients):
                    if mask >> k & 1:
                        a, b = factors[k][i]
                        delta = delta + (1 / clients) * (b @ a)
                linear.weight.copy_(delta.to(dtype))
            logits = model(input_ids=ids).logits[:, :-1].float()
            logp = torch.log_softmax(logits, dim=-1)
            logp.gather(-1, ids[:, 1:, None]).sum()
    wait()
    return time.perf_counter() - start


def generator(shape, dtype, batch=16, shared=224, own=32, new=64):
    """One timed run of Hugging Face's generate, in tokens a second: greedy, the whole batch, prompts
    fed and replies written. The adapter is folded into the weights, which costs the peer nothing.
    The shared prefix is fed with every prompt: generate does not find it, and past_key_values is
    left to users who build the cache themselves."""
    model = make_model(shape, dtype).eval()
    ids = torch.randint(0, shape["vocab_size"], (batch, shared + own), device=DEVICE)
    ids[:, :shared] = ids[0, :shared].clone()

    def run():
        wait()
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                 max_new_tokens=new, min_new_tokens=new, pad_token_id=0)
        wait()
        assert out.shape[1] == shared + own + new
        return batch * new / (time.perf_counter() - start)

    return run


def synthesis(measure, turns=3):
    """Meed, f32 and bf16 in turn; the ratio of a turn is to the faster dtype of that turn."""
    peers = {(name, label): generator(shape, dtype)
             for name, shape in (("tiny", TINY), ("smollm2-135m", SMOLLM))
             for label, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16))}
    for run in peers.values():
        run()
    rates = {key: [] for key in peers}
    ratios = {}
    for _ in range(turns):
        rows = measure("synthesis")
        for key, run in peers.items():
            rates[key].append(run())
        for name in ("tiny", "smollm2-135m"):
            mine = meed_value(rows, f"{name} bf16, 16 × (224 + 32), 64 new")
            fastest = max(rates[name, label][-1] for label in ("f32", "bf16"))
            ratios.setdefault(name, []).append(mine / fastest)
    for (name, label), measured in rates.items():
        row("synthesis", f"{name}, Hugging Face generate {label}", statistics.median(measured),
            "tokens/s")
    for name, measured in ratios.items():
        row("synthesis", f"{name}: Meed / faster Hugging Face, median of {turns} turns",
            statistics.median(measured), "x", 3.0)


def meed_value(rows, name):
    for row in rows:
        if row["name"] == name:
            return row["value"]
    return None


ROWS = []  # what --json adds to the file of meed_bench


def row(suite, name, value, unit, goal=0.0):
    verdict = ("ok" if value >= goal else "MISSED") if goal else ""
    ROWS.append(dict(suite=f"{suite}, peers", name=name, value=value, unit=unit, goal=goal,
                     verdict=verdict))
    beside = f"        (goal >= {goal}) {verdict}" if goal else ""
    print(f"  {name:<58} {value:12.4g} {unit:<8}{beside}".rstrip())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", default="all")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="add the rows to this file of the bench program")
    parser.add_argument("--meed", default="build/meed_bench", help="the bench program")
    arguments = parser.parse_args()
    global DEVICE
    DEVICE = arguments.device.split(":")[0]
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    print(f"\npeers: torch {torch.__version__}, {arguments.device}, {arguments.threads} threads")

    def measure(suite):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            subprocess.run([arguments.meed, suite, "--device", arguments.device, "--threads", str(arguments.threads),
                            "--json", file.name], check=True, stdout=subprocess.DEVNULL)
            return json.load(open(file.name))["rows"]

    if arguments.suite in ("train", "all"):
        peers = [("tiny", TINY, 8, 15, 3.0), ("smollm2-135m", SMOLLM, 8, 3, 1.5)]
        if DEVICE == "cuda":
            peers = [("tiny", TINY, 8, 15, 0.0), ("smollm2-135m", SMOLLM, 8, 15, 0.0),
                     ("qwen2.5-0.5b", QWEN, 8, 15, 3.0), ("llama-3.2-1b", LLAMA_1B, 8, 15, 3.0)]
        for name, shape, batch, turns, goal in peers:
            rates = {}
            for dtype, label in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
                for follow in (False, True):
                    key = f"{label}{', adapters too' if follow else ''}"
                    if not (dtype == torch.float32 and follow):
                        rates[key] = train_rate(shape, dtype, batch, follow, turns)
            if DEVICE == "cuda":
                rates["bf16, compiled"] = train_rate(shape, torch.bfloat16, batch, True, turns, True)
            best = max(rates, key=rates.get)
            for key, rate in rates.items():
                row("train", f"{name}, torch + PEFT {key}", rate, "tokens/s")
            rows = measure("train")
            mine = max(meed_value(rows, f"{name} f32") or 0, meed_value(rows, f"{name} bf16") or 0)
            row("train", f"{name}: Meed / fastest torch + PEFT ({best})", mine / rates[best], "x",
                goal)
    if arguments.suite in ("coalitions", "all"):
        # The goal is held at equal precision: coalitions differ by less than bf16 resolves, so a
        # utility of record is fp32. The bf16 time is printed beside it.
        seconds = {d: coalition_seconds(d) for d in (torch.float32, torch.bfloat16)}
        rows = measure("coalitions")
        mine = meed_value(rows, "64 coalitions, auto")
        for dtype, taken in seconds.items():
            row("coalitions", f"64 merged models one by one, {dtype}", taken, "s")
        row("coalitions", "64 coalitions, fp32: torch / Meed", seconds[torch.float32] / mine, "x",
            2.0)
        row("coalitions", "64 coalitions: torch bf16 / Meed fp32", seconds[torch.bfloat16] / mine,
            "x")
    if arguments.suite in ("synthesis", "all"):
        synthesis(measure)
    if arguments.json:
        with open(arguments.json) as file:
            measured = json.load(file)
        measured["rows"] += ROWS
        with open(arguments.json, "w") as file:
            json.dump(measured, file, indent=2)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
