#!/usr/bin/env python3
"""Trains the demo's base model from scratch: byte-level BPE tokenizer and a
small Llama-architecture chat model that knows ChatML, English and dialogue,
but nothing of the clients' domains.

  train_base.py --data DIR [--out model] [--steps N] [--resume CKPT]

DIR holds sgd_train.jsonl.zst, topicalchat_valid_{freq,rare}.jsonl.zst,
synthetic_persona_chat_valid.jsonl.zst and taskmaster4.jsonl.zst (see the
README for where they come from).  Needs torch, transformers, tokenizers,
safetensors and the zstd program.
"""
import argparse
import json
import math
import os
import random
import re
import subprocess
import time

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from make_data import Domain, expand

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB, SEQ = 2048, 256
# services near a client's domain: banks, buses and rides, doctors and dentists
EXCLUDE = ("Banks_", "Buses_", "RideSharing_", "Services_")
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
            " + '<|im_end|>' + '\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def chatml(msgs):
    return "".join("<|im_start|>%s\n%s<|im_end|>\n" % m for m in msgs)


# ---------------------------------------------------------------- public dialogues

def read(path):
    for line in subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout.splitlines():
        yield json.loads(line)


def turns(d):
    """Alternating (role, text), first speaker = user; runs of one speaker are joined."""
    out, first = [], None
    for who, text in d["turns"]:
        text = " ".join(text.split())
        first = first or who
        role = "user" if who == first else "assistant"
        if out and out[-1][0] == role:
            out[-1] = (role, out[-1][1] + " " + text)
        elif text:
            out.append((role, text))
    return out


def pieces(rng, t, longest):
    """Cuts a dialogue at user turns into pieces of 1..longest exchanges."""
    i, n = 0, len(t) // 2
    while i < n:
        k = min(n - i, rng.randint(1, longest))
        yield t[2 * i:2 * (i + k)]
        i += k


def public(rng, root):
    out = []
    for name, longest in (("sgd_train", 5), ("topicalchat_valid_freq", 3), ("topicalchat_valid_rare", 3),
                          ("synthetic_persona_chat_valid", 6), ("taskmaster4", 4)):
        for d in read(os.path.join(root, name + ".jsonl.zst")):
            if any(s.startswith(EXCLUDE) for s in d.get("services", [])):
                continue
            out += [chatml(p) for p in pieces(rng, turns(d), longest)]
    return out


# ---------------------------------------------------------------- generated dialogues, other domains

def generic_domains():
    """Small help desks in domains that no client has; each with its own manner."""
    def dom(name, hello, before, after, things, attrs, private, refuse):
        table = {e: dict(zip([a for a in attrs], vals)) for e, vals in things.items()}
        return Domain(name, hello, "[Also,|Next,|And|Thanks.|]", before, after,
                      "[Thanks!|Thank you.|Perfect, thanks.|No, that is all.]",
                      "[You are welcome.|My pleasure.|Have a nice day.]", [(attrs, table)], [], private, refuse)

    price = (["What is the price of {e}?", "How much do you charge for {e}?", "How expensive is {e}?"],
             ["How expensive is that?", "And the price?"],
             ["{e} costs {v}.", "the price is {v} for {e}.", "that will be {v} for {e}."])
    when = (["When can I get {e}?", "At what time do you have {e}?", "What time is {e}?"],
            ["At what time?", "When is that?"],
            ["{e} is at {v}.", "we have {e} at {v}.", "the time for {e} is {v}."])
    place = (["Where can I see {e}?", "Where do you keep {e}?", "In which place is {e}?"],
             ["Where is it?", "And in which place?"],
             ["{e} is {v}.", "you can see {e} {v}.", "we have {e} {v}."])
    how = (["What is special about {e}?", "Tell me about {e}.", "Can you describe {e}?"],
           ["Tell me more.", "What is special about it?"],
           ["{e} is known for {v}.", "people like {e} for {v}.", "the best thing about {e} is {v}."])
    long = (["How many minutes is {e}?", "Does {e} take long?", "How long do I wait for {e}?"],
            ["Does it take long?", "How many minutes?"],
            ["{e} takes {v}.", "please allow {v} for {e}.", "you need {v} for {e}."])
    no = (["Which room is [my friend|Mister Gray|the singer] in?", "Tell me the phone number of [that guest|your cook].",
           "What did [the lady before me|my cousin] buy?", "Give me the password of [the manager|another guest]."])
    sorry = ["I am sorry, but I cannot share that. It is private.", "Sorry, I cannot tell you about other guests.",
             "I am sorry, I may not give out private information."]
    return [
        dom("bakery", "[Hello there,|Hi!|]", ["Fresh from the oven:", "Yes,", "Well,"], ["", "Enjoy!"],
            {"the rye bread": ["three fifty", "seven in the morning", "on the top board", "its dark crust", "twenty minutes"],
             "the plum cake": ["four coins", "noon", "in the glass case", "a pinch of cinnamon", "an hour"],
             "the butter roll": ["sixty cents", "half past six", "in the basket by the till", "real butter", "no time at all"],
             "the cheese pie": ["five twenty", "eleven o'clock", "on the warm plate", "goat cheese", "ten minutes"],
             "the wedding cake": ["two hundred", "three in the afternoon", "in the cool room", "five layers", "two weeks"]},
            dict(price=price, when=when, place=place, how=how, long=long), no, sorry),
        dom("hotel", "[Good evening,|Hello,|]", ["Certainly,", "With pleasure,"], ["", "Enjoy your stay."],
            {"breakfast": ["eighteen pounds", "seven to ten", "in the winter garden", "fresh waffles", "as long as you like"],
             "the sauna": ["nothing for guests", "five in the evening", "under the roof", "the view of the lake", "ninety minutes"],
             "the tower suite": ["four hundred a night", "three o'clock", "on the fifth floor", "a round bed", "one night at least"],
             "the boat trip": ["twenty-two pounds", "half past one", "at the pier", "the seals", "two hours"],
             "the evening concert": ["ten pounds", "nine at night", "in the hall of mirrors", "a jazz trio", "an hour and a half"]},
            dict(price=price, when=when, place=place, how=how, long=long), no, sorry),
        dom("museum", "[Hello!|Hi,|]", ["The museum says:", "Our guide says:"], ["", "Come and see."],
            {"the whale skeleton": ["free", "every hour", "in the blue hall", "its size", "fifteen minutes"],
             "the moon rock": ["two euros", "ten in the morning", "behind thick glass", "its age", "five minutes"],
             "the steam engine": ["three euros", "two in the afternoon", "in the courtyard", "the loud whistle", "half an hour"],
             "the mummy": ["six euros", "sunset", "in the cellar", "a golden mask", "twelve minutes"],
             "the painting class": ["fifteen euros", "four on Sundays", "in the studio", "a patient teacher", "three hours"]},
            dict(price=price, when=when, place=place, how=how, long=long), no, sorry),
        dom("garden", "[Hello,|Morning,|]", ["I think", "In my garden,", "Oh,"], ["", "Good luck with your plants.", "Water well."],
            {"the rose bush": ["nine dollars", "early spring", "near the fence", "a sweet smell", "two seasons"],
             "the apple tree": ["forty dollars", "late autumn", "in the long row", "red fruit", "five years"],
             "the tomato plant": ["two dollars", "the middle of May", "in the glass house", "a rich taste", "ten weeks"],
             "the cactus": ["six dollars", "any month", "on the sunny table", "needing no care", "a lifetime"],
             "the fern": ["eight dollars", "the rainy season", "in the shade", "soft green leaves", "one summer"]},
            dict(price=price, when=when, place=place, how=how, long=long), no, sorry),
        dom("cinema", "[Hey,|Hi there!|]", ["So,", "Right,", "You bet,"], ["", "Enjoy the show!", "Popcorn is ready!"],
            {"the space film": ["thirteen", "twenty past eight", "in hall one", "robots that sing", "130 minutes"],
             "the old comedy": ["seven", "six thirty", "in the small hall", "a silly dog", "95 minutes"],
             "the horror night": ["twenty", "midnight", "in the cellar hall", "real screams", "four hours"],
             "the nature film": ["nine fifty", "two fifteen", "in hall three", "snow leopards", "80 minutes"],
             "the love story": ["eleven", "nine o'clock", "in the balcony hall", "a happy ending", "two hours"]},
            dict(price=price, when=when, place=place, how=how, long=long), no, sorry),
        dom("fitness", "[Hi,|Hello coach,|]", ["Coach here:", "Team gym:"], ["", "Stay strong!", "Keep moving!"],
            {"the yoga hour": ["14 points", "8:15", "on the roof", "slow breathing", "60 minutes"],
             "the boxing lesson": ["20 points", "19:30", "in the ring", "fast feet", "45 minutes"],
             "the swim course": ["25 points", "6:40", "in lane five", "warm water", "50 minutes"],
             "the bike race": ["9 points", "12:05", "at the south gate", "steep hills", "3 hours"],
             "the dance party": ["11 points", "21:00", "in studio B", "loud music", "all night"]},
            dict(price=price, when=when, place=place, how=how, long=long), no, sorry),
    ]


NAMES = "Ada Ben Carla Dev Elif Finn Grace Hugo Ines Jack Kofi Lena Mina Noor Otto Pia Quinn Rosa Sam Tara Uwe Vera Will Yuki Zoe".split()
GOODS = ("a lamp|a blue scarf|two tickets|a bicycle|a guitar|three mugs|a raincoat|a pair of shoes|a chess set|a tent|"
         "a red kite|four chairs|a winter hat|a camera|a mirror|six candles|a clock|a carpet|a backpack|a teapot").split("|")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
COLOUR = "red blue green yellow white black grey brown pink purple".split()


def order(rng):
    """A dialogue whose replies repeat what the user said: practice in using the context."""
    n, g, d, c = rng.choice(NAMES), rng.choice(GOODS), rng.choice(DAYS), rng.choice(COLOUR)
    num = "%d%s%02d" % (rng.randint(1, 99), rng.choice(["", ".", ":"]), rng.randint(0, 59))
    s = dict(n=n, g=g, d=d, c=c, x=num)
    asks = [("I would like to order {g}.", "[Sure|Of course|Gladly], I have put {g} on your order."),
            ("[My name is|I am|This is] {n}.", "[Hello|Welcome|Nice to meet you,] {n}. How can I help you?"),
            ("Can you [bring|send] it on {d}?", "[Yes|Sure], it [will come|arrives] on {d}."),
            ("[I want it in|The colour should be] {c}.", "[Noted|Fine|Good choice], the colour is {c}."),
            ("My number is {x}.", "[Thank you|Got it], your number is {x}.")]
    back = [("What did I order?", "You ordered {g}.", 0), ("[What is|Do you know] my name?", "Your name is {n}.", 1),
            ("On which day does it come?", "It comes on {d}.", 2), ("Which colour did I choose?", "You chose {c}.", 3),
            ("Can you repeat my number?", "Your number is {x}.", 4)]
    idx = rng.sample(range(5), rng.randint(1, 3))
    out = [asks[i] for i in idx]
    i = rng.choice(idx)
    out.append(back[i][:2])
    msgs = []
    for q, a in out:
        msgs += [("user", expand(rng, q, **s)), ("assistant", expand(rng, a, **s))]
    return chatml(msgs)


ASKS = [("[How much is|What is the price of|What do you charge for] {e}?", "[How much is it?|And the price?]",
         "{e} [costs|is] {m}.", "m"),
        ("[When does {e} start|When is {e}|At what time is {e}]?", "[When is it?|And at what time?]",
         "{e} [is at|starts at|begins at] {t}.", "t"),
        ("[Where is|Where can I see|Where do you have] {e}?", "[Where is that?|And where can I see it?]",
         "{e} is [at|near|behind] the {w}.", "w"),
        ("[Which day is|On which day do you have] {e}?", "[And on which day?|Which day is it?]",
         "{e} is on {d}.", "d"),
        ("[Who made|Who knows|Who takes care of] {e}?", "[Who made it?|And who takes care of it?]",
         "[{n} takes care of {e}.|{e} was made by {n}.|ask {n} about {e}.]", "n"),
        ("[Which colour is|What colour does] {e} [have|come in]?", "[Which colour is it?|And the colour?]",
         "{e} is {c}.", "c"),
        ("[How many|Do you know how many] {w} does {e} have?", "[And how many?|How many does it have?]",
         "{e} has {x}.", "x"),
        ("[What do you think of|Tell me about|What is new with] {e}?", "[What else?|Tell me more.]",
         "[many people like {e}.|{e} is a good choice.|we are proud of {e}.]", "")]


def ask(rng, words):
    """Questions about things with random names, which the replies repeat, also after a follow-up."""
    def thing():
        w = [rng.choice(words) for _ in range(rng.choice([1, 2, 2, 3]))]
        if rng.random() < 0.3:
            w = [x.capitalize() for x in w]
        return rng.choice(["the ", "the ", "a ", ""]) + " ".join(w)

    lead = rng.choice(["", "", "", "Sure, ", "Well, ", "Yes: ", "Answer: ", "Thank you, ", rng.choice(words).capitalize() + " desk: "])
    tail = rng.choice(["", "", "", " Have fun.", " See you soon.", " Anything else?"])
    msgs, e, used = [], thing(), set()
    for i in range(rng.choice([1, 2, 2, 3])):
        follow = i > 0 and rng.random() < 0.6
        if i > 0 and not follow:
            e, used = thing(), set()
        k = rng.choice([x for x in range(len(ASKS)) if x not in used])
        used.add(k)
        slots = dict(e=e, m=rng.choice(["%d euros", "%d dollars", "%d pounds", "%d cents"]) % rng.randint(2, 99),
                     t="%d:%02d" % (rng.randint(0, 23), rng.randint(0, 59)), w=rng.choice(words), d=rng.choice(DAYS),
                     n=rng.choice(NAMES), c=rng.choice(COLOUR), x=str(rng.randint(2, 40)))
        q, f, r, _ = ASKS[k]
        r = expand(rng, r, **slots)
        if lead:
            r = lead + (r if e[:1].isupper() else r[:1].lower() + r[1:])
        msgs += [("user", expand(rng, f if follow else q, **slots)), ("assistant", r + tail)]
    return chatml(msgs)


def generated(rng, n, texts):
    doms, out, words = generic_domains(), [], set()
    for t in texts[:4000]:
        words |= set(re.findall(r"\b[a-z]{4,10}\b", t))
    words = sorted(words)
    for _ in range(n):
        if rng.random() < 0.6:
            out.append(order(rng) if rng.random() < 0.3 else ask(rng, words))
            continue
        m, _ = rng.choice(doms).dialogue(rng, rng.choice([1, 2, 2, 3]), closing=rng.random() < 0.3,
                                         refusal=rng.random() < 0.1)
        out.append(chatml([(x["role"], x["content"]) for x in m]))
    return out


# ---------------------------------------------------------------- tokenizer, packing, model

def make_tokenizer(texts, path):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    plain = (t.replace("<|im_start|>", "").replace("<|im_end|>", "") for t in texts)
    tok.train_from_iterator(plain, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.save(path)
    return tok


def pack(tok, texts):
    """Rows of SEQ + 1 ids: whole dialogues with <|endoftext|> between; a row starts with a dialogue."""
    rows, spare = [], []
    for e in tok.encode_batch(texts):
        ids = e.ids[:SEQ + 1] + [0]
        fit = [r for r in spare if len(r) + len(ids) <= SEQ + 2]
        if fit:
            max(fit, key=len).extend(ids)
            continue
        spare.append(ids)
        if len(spare) > 24:
            rows.append(spare.pop(max(range(len(spare)), key=lambda i: len(spare[i]))))
    rows += spare
    out = torch.zeros(len(rows), SEQ + 1, dtype=torch.long)
    for i, r in enumerate(rows):
        out[i, :min(len(r), SEQ + 1)] = torch.tensor(r[:SEQ + 1])
    return out


def make_model():
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=5, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=2, pad_token_id=0, initializer_range=0.05, attn_implementation="sdpa"))


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is replaced by its nearest orthogonal one (quintic Newton-Schulz steps)."""

    def __init__(self, params, lr, momentum=0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            for p in g["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.mul_(g["momentum"]).add_(p.grad)
                x = p.grad + g["momentum"] * m
                t = x.shape[0] > x.shape[1]
                x = (x.T if t else x) / (x.norm() + 1e-7)
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                p.mul_(1 - g["lr"] * 0.05).add_((x.T if t else x) * max(1, p.shape[0] / p.shape[1]) ** 0.5, alpha=-g["lr"])


def export(model, out):
    os.makedirs(out, exist_ok=True)
    keep = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(keep, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    c = model.config
    cfg = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB,
           "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
           "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
           "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim, "hidden_act": "silu",
           "max_position_embeddings": c.max_position_embeddings, "rms_norm_eps": c.rms_norm_eps,
           "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
           "attention_dropout": 0.0, "initializer_range": c.initializer_range, "tie_word_embeddings": True,
           "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "use_cache": True, "torch_dtype": "bfloat16"}
    tcfg = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, "bos_token": None,
            "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
            "model_max_length": 512, "clean_up_tokenization_spaces": False, "add_bos_token": False,
            "added_tokens_decoder": {str(i): {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                                              "single_word": False, "special": True} for i, s in enumerate(SPECIAL)}}
    gcfg = {"eos_token_id": 2, "pad_token_id": 0, "do_sample": False, "max_new_tokens": 64}
    for name, obj in (("config", cfg), ("tokenizer_config", tcfg), ("generation_config", gcfg)):
        with open(os.path.join(out, name + ".json"), "w") as f:
            json.dump(obj, f, indent=2)
            f.write("\n")


def held_out(model, rows):
    model.eval()
    with torch.no_grad():
        s = n = 0.0
        for i in range(0, len(rows), 16):
            b = rows[i:i + 16]
            y = b[:, 1:].clone()
            mask = ~((y == 0) & (b[:, :-1] == 0))
            lp = torch.log_softmax(model(input_ids=b[:, :-1]).logits.float(), -1).gather(-1, y[..., None])[..., 0]
            s, n = s - float((lp * mask).sum()), n + int(mask.sum())
    model.train()
    return s / n


def main():
    ap = argparse.ArgumentParser(description="trains the tokenizer and the base model")
    ap.add_argument("--data", required=True)
    ap.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "model"))
    ap.add_argument("--steps", type=int, default=5200)
    ap.add_argument("--batch", type=int, default=8)
    ap.add_argument("--muon-lr", type=float, default=0.02)
    ap.add_argument("--adam-lr", type=float, default=4e-3)
    ap.add_argument("--generated", type=int, default=14000)
    ap.add_argument("--every", type=int, default=200, help="steps between held-out losses and checkpoints")
    ap.add_argument("--checkpoint", default="", help="directory for raw checkpoints")
    ap.add_argument("--resume", default="", help="start from this checkpoint")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--seed", type=int, default=11)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    rng = random.Random(a.seed)
    os.makedirs(a.out, exist_ok=True)

    texts = public(rng, a.data)
    texts += generated(rng, a.generated, rng.sample(texts, len(texts)))
    rng.shuffle(texts)
    tok = make_tokenizer(texts, os.path.join(a.out, "tokenizer.json"))
    rows = pack(tok, texts)
    valid, rows = rows[:64], rows[64:]
    model = make_model()
    fill = float((rows > 0).float().mean())
    print("rows %d (%.2f M tokens, filled %.0f%%), parameters %.2f M" % (
        len(rows), rows.numel() / 1e6, 100 * fill, sum(p.numel() for p in model.parameters()) / 1e6), flush=True)
    print("step 0 held-out perplexity %.1f" % math.exp(held_out(model, valid)), flush=True)
    mats = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for n, p in model.named_parameters() if not any(p is q for q in mats)]
    opts = [Muon(mats, a.muon_lr), torch.optim.AdamW(rest, a.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)]
    start = 0
    if a.resume:
        ck = torch.load(a.resume)
        model.load_state_dict(ck["model"])
        for o, s in zip(opts, ck["opts"]):
            o.load_state_dict(s)
        start = ck["step"]
    base = [o.param_groups[0]["lr"] if not a.resume else lr for o, lr in zip(opts, (a.muon_lr, a.adam_lr))]
    order_ = []
    t0, tokens, run = time.time(), 0, None
    for step in range(start, a.steps):
        if len(order_) < a.batch:
            order_ = torch.randperm(len(rows), generator=torch.Generator().manual_seed(a.seed + step)).tolist()
        b = rows[[order_.pop() for _ in range(a.batch)]]
        scale = min(1.0, (step + 1) / 50) * max(0.02, min(1.0, (a.steps - step) / (0.6 * a.steps)))
        for o, lr in zip(opts, base):
            o.param_groups[0]["lr"] = lr * scale
        x, y = b[:, :-1], b[:, 1:].clone()
        y[(y == 0) & (x == 0)] = -100
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=x).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), y.flatten(), ignore_index=-100)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for o in opts:
            o.step()
        tokens += x.numel()
        run = loss.item() if run is None else 0.98 * run + 0.02 * loss.item()
        if (step + 1) % 20 == 0:
            print("step %d loss %.3f tokens/s %.0f" % (step + 1, run, tokens / (time.time() - t0)), flush=True)
        if (step + 1) % a.every == 0 or step + 1 == a.steps:
            print("step %d held-out perplexity %.2f" % (step + 1, math.exp(held_out(model, valid))), flush=True)
            export(model, a.out)
            if a.checkpoint:
                os.makedirs(a.checkpoint, exist_ok=True)
                torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "step": step + 1},
                           os.path.join(a.checkpoint, "last.pt"))


if __name__ == "__main__":
    main()
