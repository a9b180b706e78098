"""Writes tests/golden/audit: what numpy, zlib, rouge_score, transformers and PEFT make of an audit.

A development script, independent of Meed's sources. Statistics are counted over all pairs, ranks by
sorting; the model part runs the example model and a random adapter on dialogues of the example
clinic, one sequence at a time, in float32. Wherever a rank or an argmax decides, the script refuses
data in which two candidates are closer than arithmetic may differ, so that the expected numbers are
those of any correct program. Needs torch, transformers, peft, numpy, safetensors, rouge_score:

    python tests/golden/generate/make_audit_goldens.py .
"""

import json
import math
import os
import sys
import zlib

import numpy as np
import torch
from peft import PeftModel
from rouge_score import rouge_scorer
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

EXAMPLES, PREFIXES, NEW_TOKENS, MIN_K = 12, [0, 3], 24, 0.2
CANARIES = 3
GAP = 1e-3


# --- statistics ------------------------------------------------------------------------------------
def area(members, others):
    wins = (members[:, None] > others[None, :]).astype(float)
    return float((wins + 0.5 * (members[:, None] == others[None, :])).mean())


def found(members, others, share):
    """Largest share of members above a threshold that at most `share` of the others reach."""
    best = 0.0
    for threshold in np.unique(np.concatenate([members, others])):
        if (others >= threshold).mean() <= share + 1e-12:
            best = max(best, float((members >= threshold).mean()))
    return best


def delong_se(members, others):
    """DeLong, DeLong and Clarke-Pearson (1988) of one area."""
    wins = (members[:, None] > others[None, :]) + 0.5 * (members[:, None] == others[None, :])
    return math.sqrt(wins.mean(axis=1).var(ddof=1) / len(members)
                     + wins.mean(axis=0).var(ddof=1) / len(others))


def min_k(values):
    values = np.sort(np.asarray(values, dtype=np.float64))
    return float(values[:max(1, int(MIN_K * len(values) + 0.5))].mean())


def statistics_part():
    draw = np.random.default_rng(3)
    cases = []
    for count, other_count, shift, digits in [(40, 60, 0.8, 1), (150, 120, 0.2, 6), (7, 5, 0.0, 0)]:
        members = np.round(draw.standard_normal(count) + shift, digits)
        others = np.round(draw.standard_normal(other_count), digits)
        cases.append({"members": members.tolist(), "others": others.tolist(),
                      "area": area(members, others), "delong_se": delong_se(members, others),
                      "found_1": found(members, others, 0.01),
                      "found_5": found(members, others, 0.05)})
    ranks = []
    for count in (1, 99, 1023):
        others = np.round(10 * draw.standard_normal(count), 1)
        secret = float(np.round(10 + 10 * draw.standard_normal(), 1))
        rank = 1 + int((others > secret).sum()) + 0.5 * int((others == secret).sum())
        ranks.append({"secret": secret, "others": others.tolist(),
                      "bits": math.log2((count + 1) / rank)})
    tokens = []
    for count in (1, 2, 7, 40):
        values = (-3 * draw.random(count)).astype(np.float32)
        tokens.append({"logprobs": [float(v) for v in values], "min_k": min_k(values),
                       "loss": float(values.astype(np.float64).mean())})
    texts = ["", "a", "The room is on the second floor.", "abc" * 200,
             "Grüße, 你好, " * 9, "".join(chr(33 + int(v)) for v in draw.integers(0, 90, 500))]
    return {"separation": cases, "exposure": ranks, "tokens": tokens,
            "zlib": [{"text": t, "bytes": len(zlib.compress(t.encode(), 6))} for t in texts]}


# --- the models ------------------------------------------------------------------------------------
def write_adapter(folder, config):
    """Rank 2 on q_proj and down_proj, large enough to change what is said."""
    os.makedirs(folder, exist_ok=True)
    draw = torch.Generator().manual_seed(5)
    heads, hidden = config.num_attention_heads, config.hidden_size
    width = heads * (getattr(config, "head_dim", None) or hidden // heads)
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for path, k, n in [("self_attn.q_proj", hidden, width),
                           ("mlp.down_proj", config.intermediate_size, hidden)]:
            name = f"base_model.model.model.layers.{layer}.{path}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(2, k, generator=draw) / math.sqrt(k)
            tensors[f"{name}.lora_B.weight"] = 0.15 * torch.randn(n, 2, generator=draw)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"))
    with open(os.path.join(folder, "adapter_config.json"), "w") as file:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny",
                   "r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "bias": "none",
                   "target_modules": ["down_proj", "q_proj"]}, file, indent=1, sort_keys=True)
        file.write("\n")


def encode(tokenizer, messages):
    """Tokens and which of them are learned: every reply and its end of turn."""
    ids, scored = [], []

    def put(text, learned):
        piece = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.extend(piece)
        scored.extend([learned] * len(piece))
    for message in messages:
        learned = message["role"] == "assistant"
        put(f"<|im_start|>{message['role']}\n", False)
        put(message["content"], learned)
        put("<|im_end|>", learned)
        put("\n", False)
    return ids, scored


def check_template(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


@torch.no_grad()
def logprobs(model, ids, scored):
    logits = model(torch.tensor([ids])).logits[0].float()
    each = torch.log_softmax(logits, dim=-1)
    return [float(each[t - 1, ids[t]]) for t in range(1, len(ids)) if scored[t]]


@torch.no_grad()
def continuation(model, prompt, stops):
    made = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False,
                          eos_token_id=stops, pad_token_id=0, output_logits=True,
                          return_dict_in_generate=True)
    for logits in made.logits:
        top = logits[0].float().topk(2).values
        assert top[0] - top[1] > GAP, "two tokens too close: take other dialogues"
    ids = made.sequences[0, len(prompt):].tolist()
    return ids[:-1] if ids and ids[-1] in stops else ids


def last_reply(scored):
    end = max(t for t, s in enumerate(scored) if s)  # the end of turn itself is no reply
    begin = end
    while scored[begin - 1]:
        begin -= 1
    return begin, end


def mean_se(values):
    values = np.asarray(values, dtype=np.float64)
    return {"mean": float(values.mean()),
            "se": float(values.std(ddof=1) / math.sqrt(len(values)))}


def extraction(models, tokenizer, dialogues, stops):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    rows = {}
    for name, model in models.items():
        for prefix in PREFIXES:
            rouge, exact, whole, replies = [], [], 0, []
            for ids, scored in dialogues:
                begin, end = last_reply(scored)
                if end - begin <= prefix:
                    continue
                truth = ids[begin + prefix:end][:NEW_TOKENS]
                made = continuation(model, ids[:begin + prefix], stops)
                same = 0
                while same < len(truth) and same < len(made) and truth[same] == made[same]:
                    same += 1
                exact.append(same / len(truth))
                whole += same == len(truth)
                score = scorer.score(tokenizer.decode(truth), tokenizer.decode(made))["rougeL"]
                words = any(c.isalnum() for c in tokenizer.decode(truth))
                rouge.append(score.fmeasure if words else float(same == len(truth)))
            rows[name, prefix] = (rouge, exact, whole)
    out = []
    for name in models:
        for prefix in PREFIXES:
            rouge, exact, whole = rows[name, prefix]
            floor = rows["base", prefix]
            out.append({"model": name, "prefix": prefix, "examples": len(rouge), "whole": whole,
                        "rouge": mean_se(rouge), "exact": mean_se(exact),
                        "rouge_gain": mean_se(np.subtract(rouge, floor[0])),
                        "exact_gain": mean_se(np.subtract(exact, floor[1]))})
    return out


def membership(models, tokenizer, members, others):
    def scores(model, base):
        rows = []
        for ids, scored in members + others:
            own, ref = logprobs(model, ids, scored), logprobs(base, ids, scored)
            text = tokenizer.decode([i for i, s in zip(ids, scored) if s], skip_special_tokens=True)
            mean = float(np.mean(own))
            rows.append((mean, float(np.sum(own)) / len(zlib.compress(text.encode(), 6)),
                         min_k(own), mean - float(np.mean(ref))))
        return np.array(rows).T
    out = []
    for name, model in models.items():
        each = scores(model, models["base"])
        for score, values in zip(["loss", "zlib", "min-k", "reference"], each):
            if name == "base" and score == "reference":
                continue
            a, b = values[:len(members)], values[len(members):]
            # A near tie could fall to either side: allow for all of them.
            near = int((np.abs(a[:, None] - b[None, :]) < 1e-5).sum())
            assert near == 0, (name, score, near)
            out.append({"model": name, "score": score, "area": area(a, b),
                        "found_5": found(a, b, 0.05)})
    return out


def exposures(models, tokenizer):
    """Of each canary the first candidate, in a drawn order, that no other one is near to."""
    draw = np.random.default_rng(9)
    out = {name: [] for name in models}
    for number in range(1, CANARIES + 1):
        sums = {name: [] for name in models}
        for candidate in range(100):
            ids, scored = encode(tokenizer, [
                {"role": "user", "content": f"What is the code of locker {number}?"},
                {"role": "assistant",
                 "content": f"The code of locker {number} is {candidate:02d}."}])
            for name, model in models.items():
                sums[name].append(float(np.sum(logprobs(model, ids, scored))))
        for secret in draw.permutation(100):
            others = {name: np.delete(sums[name], secret) for name in models}
            if all(np.abs(others[n] - sums[n][secret]).min() > GAP for n in models):
                break
        else:
            raise SystemExit(f"canary {number}: every candidate has a near one")
        for name in models:
            rank = 1 + int((others[name] > sums[name][secret]).sum())
            out[name].append({"model": name, "secret": f"{secret:02d}", "rank": rank,
                              "bits": math.log2(100 / rank)})
    return [row for name in models for row in out[name]]


def main(root):
    torch.set_num_threads(1)
    folder = os.path.join(root, "tests/golden/audit")
    tiny = os.path.join(root, "examples/tiny")
    tokenizer = AutoTokenizer.from_pretrained(os.path.join(tiny, "model"))

    def load():
        return AutoModelForCausalLM.from_pretrained(os.path.join(tiny, "model"),
                                                    dtype=torch.float32).eval()
    base = load()
    write_adapter(os.path.join(folder, "adapter"), base.config)
    models = {"base": base,
              "adapter": PeftModel.from_pretrained(load(), os.path.join(folder, "adapter")).eval()}
    with open(os.path.join(tiny, "clients/clinic.jsonl")) as file:
        lines = [json.loads(line)["messages"] for line in file]
    for messages in lines:
        check_template(tokenizer, messages)
    members = [encode(tokenizer, m) for m in lines[:EXAMPLES]]
    others = [encode(tokenizer, m) for m in lines[-EXAMPLES:]]
    eos = base.generation_config.eos_token_id
    stops = sorted({tokenizer.convert_tokens_to_ids("<|im_end|>"),
                    *(eos if isinstance(eos, list) else [eos])})
    expected = {"examples": EXAMPLES, "max_new_tokens": NEW_TOKENS, "min_k": MIN_K,
                **statistics_part(),
                "models": {"extraction": extraction(models, tokenizer, members, stops),
                           "membership": membership(models, tokenizer, members, others),
                           "exposure": exposures(models, tokenizer)}}
    with open(os.path.join(folder, "expected.json"), "w") as file:
        json.dump(expected, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
