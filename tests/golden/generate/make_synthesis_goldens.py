#!/usr/bin/env python3
"""Losses of replies behind their dialogue and behind nothing, as transformers and PEFT compute them.

Writes tests/golden/synthesis/losses.json: {"cases": [{"messages", "tokens", "base": [loss,
loss_alone], "adapter": [loss, loss_alone]}]}, means over the tokens of all replies and their ends,
and adapter/, a PEFT adapter of the embedded model (rank 1 on q and v, B not zero). Everything is
float32 on the model of examples/tiny; IFS is loss / loss_alone.

    python3 tests/golden/generate/make_synthesis_goldens.py
"""
import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODEL = ROOT / "examples" / "tiny" / "model"
OUT = ROOT / "tests" / "golden" / "synthesis"


def dialogues():
    def talk(*texts):
        return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]

    own = [json.loads(line)["messages"]
           for line in (ROOT / "examples/tiny/clients/clinic.jsonl").read_text().splitlines()[:4]]
    return own + [
        talk("Say again: the red kite flies over the hill.", "The red kite flies over the hill."),
        talk("Where is the dental clinic?", "Mind the gap."),
        talk("Wie spät ist es, 東京?", "Es ist – ungefähr – fünf Uhr 🙂."),
        talk("How are you?", "Fine."),
        talk("What is the price of the boat trip?", "The price is four euros.",
             "And the price of the evening concert?", "It costs nine dollars.", "Thanks.", "Bye."),
    ]


def encode(tokenizer, messages):
    """Ids, mask of what is scored, and the replies' own ids."""
    start, end = (tokenizer.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>"))

    def plain(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    ids, scored, replies, text = [], [], [], ""
    for message in messages:
        text_ids = plain(text)
        ids += text_ids + [start]
        scored += [0] * (len(text_ids) + 1)
        if message["role"] == "user":
            body = plain("user\n" + message["content"]) + [end]
            mask = [0] * len(body)
        else:
            head, reply = plain("assistant\n"), plain(message["content"]) + [end]
            body, mask = head + reply, [0] * len(head) + [1] * len(reply)
            replies.append([start] + head + reply)
        ids, scored, text = ids + body, scored + mask, "\n"
    return ids, scored, replies


def nll(model, ids, scored):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    return -sum(float(logp[t - 1, ids[t]]) for t in range(1, len(ids)) if scored[t])


def losses(model, tokenizer, messages):
    ids, scored, replies = encode(tokenizer, messages)
    tokens = sum(scored)
    alone = sum(nll(model, r, [0] * (len(r) - count) + [1] * count)
                for r, count in ((r, len(r) - 1 - len(tokenizer.encode(
                    "assistant\n", add_special_tokens=False).ids)) for r in replies))
    return tokens, [nll(model, ids, scored) / tokens, alone / tokens]


def main():
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    cases = []
    for messages in dialogues():
        tokens, base = losses(model, tokenizer, messages)
        cases.append({"messages": messages, "tokens": tokens, "base": base})
    torch.manual_seed(5)
    tuned = get_peft_model(model, LoraConfig(r=1, lora_alpha=2, target_modules=["q_proj", "v_proj"],
                                             task_type="CAUSAL_LM"))
    for name, value in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.uniform_(value, -0.3, 0.3)
    tuned.eval()
    for case in cases:
        case["adapter"] = losses(tuned, tokenizer, case["messages"])[1]
    tuned.save_pretrained(OUT / "adapter")
    (OUT / "adapter" / "README.md").unlink(missing_ok=True)
    config = OUT / "adapter" / "adapter_config.json"
    text = json.loads(config.read_text())
    text["base_model_name_or_path"] = "examples/tiny/model"
    config.write_text(json.dumps(text, indent=1, sort_keys=True) + "\n")
    (OUT / "losses.json").write_text(json.dumps({"cases": cases}, indent=1, ensure_ascii=False) + "\n",
                                     encoding="utf-8")


if __name__ == "__main__":
    main()
