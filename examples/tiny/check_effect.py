#!/usr/bin/env python3
"""Simulates the demo federation in PyTorch and prints what each client is worth.

  check_effect.py [--rounds 3] [--rank 16] [--lr 6e-3] [--steps 24] ...

A round: every client trains a LoRA adapter on all seven projections from the
same global adapter; its update is the difference dW in weight space; a
coalition S stands for W + G + sum of p dW_k over S with fixed p = 1/clients;
Shapley values are exact over all coalitions, per axis, with a standard error
over the benchmark's dialogues.  The global adapter becomes the truncated SVD
of the sum; a client whose guard axis is significantly negative is left out.
Needs torch, transformers, tokenizers.
"""
import argparse
import itertools
import json
import math
import os
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = ["clinic", "bank", "library", "transit", "mixer", "idle"]
AXES = ["dialogue", "grounding", "safety"]


def rows(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


class Chat:
    """ChatML ids and the positions that count: assistant content and its <|im_end|>."""

    def __init__(self, path):
        self.tok = Tokenizer.from_file(path)

    def encode(self, msgs, last_only=False):
        ids, mask = [], []
        for i, m in enumerate(msgs):
            head = self.tok.encode("<|im_start|>%s\n" % m["role"]).ids
            body = self.tok.encode(m["content"] + "<|im_end|>").ids
            on = m["role"] == "assistant" and (not last_only or i == len(msgs) - 1)
            tail = self.tok.encode("\n").ids
            ids += head + body + tail
            mask += [0] * len(head) + [int(on)] * len(body) + [0] * len(tail)
        return ids, mask


def batch(seqs):
    n = max(len(s[0]) for s in seqs)
    ids = torch.zeros(len(seqs), n, dtype=torch.long)
    mask = torch.zeros(len(seqs), n)
    for i, (a, b) in enumerate(seqs):
        ids[i, :len(a)] = torch.tensor(a)
        mask[i, :len(b)] = torch.tensor(b, dtype=torch.float)
    return ids, mask


class LoRA(torch.nn.Module):
    def __init__(self, base, rank, scale):
        super().__init__()
        self.base, self.rank, self.scale = base, rank, scale
        self.A = torch.nn.Parameter(torch.zeros(rank, base.in_features))
        self.B = torch.nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + self.scale * ((x @ self.A.T) @ self.B.T)

    def delta(self):
        return self.scale * (self.B @ self.A).detach()


class Federation:
    def __init__(self, a):
        self.a = a
        self.chat = Chat(os.path.join(a.model, "tokenizer.json"))
        self.model = LlamaForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
        for p in self.model.parameters():
            p.requires_grad_(False)
        self.lora = []
        for layer in self.model.model.layers:
            for mod in (layer.self_attn, layer.mlp):
                for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
                    if hasattr(mod, name):
                        lin = LoRA(getattr(mod, name), a.rank, a.alpha / a.rank)
                        setattr(mod, name, lin)
                        self.lora.append(lin)
        g = torch.Generator().manual_seed(a.seed)
        self.global_ = []                      # (A, B) a module: A kaiming-uniform, B zero
        for m in self.lora:
            bound = 1 / math.sqrt(m.base.in_features)
            self.global_.append(((torch.rand(m.A.shape, generator=g) * 2 - 1) * bound, torch.zeros_like(m.B)))
        self.data = {c: [self.chat.encode(r["messages"]) for r in rows(os.path.join(a.data, "clients", c + ".jsonl"))]
                     for c in CLIENTS}
        self.load_benchmark(os.path.join(a.data, "benchmark.jsonl"))

    def load_benchmark(self, path):
        items = rows(path)[1:]
        cats = {}
        for it in items:
            cats.setdefault(it["category"], []).append(it)
        self.cats = list(cats)
        self.seqs, self.plan = [], []          # plan: (axis, category, seq, seq or None)
        for c, its in cats.items():
            for i, it in enumerate(its):
                if "safety" in it["axes"]:
                    for k in ("good", "bad"):
                        self.seqs.append(self.chat.encode(
                            it["messages"] + [{"role": "assistant", "content": it[k]}], True))
                    self.plan.append(("safety", c, len(self.seqs) - 2, len(self.seqs) - 1))
                    continue
                m, other = it["messages"], its[(i + 1) % len(its)]["messages"]
                self.seqs += [self.chat.encode(m), self.chat.encode(m, True),
                              self.chat.encode(other[:-1] + m[-1:], True)]
                n = len(self.seqs)
                self.plan += [("dialogue", c, n - 3, None), ("grounding", c, n - 2, n - 1)]

    def set_global(self):
        for m, (A, B) in zip(self.lora, self.global_):
            m.A.data, m.B.data = A.clone(), B.clone()

    def train(self, name, rnd):
        """The client's dW per module, its mean loss and its tokens; `idle` sends its start back."""
        self.set_global()
        start = [m.delta() for m in self.lora]
        if name == "idle":
            return [torch.zeros_like(s) for s in start], float("nan"), 0
        a, data = self.a, self.data[name]
        params = [p for m in self.lora for p in (m.A, m.B)]
        for p in params:
            p.requires_grad_(True)
        opt = torch.optim.AdamW(params, a.lr, weight_decay=0.0)
        g = torch.Generator().manual_seed(a.seed + 1000 * rnd + CLIENTS.index(name))
        steps = a.steps or math.ceil(a.epochs * len(data) / a.batch)
        order, total, tokens = [], 0.0, 0
        for s in range(steps):
            if len(order) < a.batch:
                order += torch.randperm(len(data), generator=g).tolist()
            pick, order = order[:a.batch], order[a.batch:]
            ids, mask = batch([data[i] for i in pick])
            tokens += sum(len(data[i][0]) for i in pick)
            lg = self.model(input_ids=ids[:, :-1]).logits
            loss = (F.cross_entropy(lg.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
                    * mask[:, 1:].flatten()).sum() / mask[:, 1:].sum()
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            warm = min(1.0, (s + 1) / 3)
            opt.param_groups[0]["lr"] = a.lr * warm * (1 - s / steps if a.decay else 1)
            opt.step()
            total += loss.item()
        for p in params:
            p.requires_grad_(False)
        return [m.delta() - s for m, s in zip(self.lora, start)], total / steps, tokens

    @torch.no_grad()
    def utilities(self, deltas):
        """Per-item scores (one a plan entry) of W + G + the given sum of updates."""
        saved = [m.base.weight.data for m in self.lora]
        self.set_global()
        for m, d in zip(self.lora, deltas):
            m.base.weight.data = m.base.weight.data + m.delta() + d
            m.B.data.zero_()
        lp = torch.zeros(len(self.seqs))
        by_len = sorted(range(len(self.seqs)), key=lambda i: len(self.seqs[i][0]))
        for i in range(0, len(by_len), 32):
            idx = by_len[i:i + 32]
            ids, mask = batch([self.seqs[j] for j in idx])
            lg = torch.log_softmax(self.model(input_ids=ids[:, :-1]).logits, -1)
            t = lg.gather(-1, ids[:, 1:, None])[..., 0] * mask[:, 1:]
            lp[idx] = t.sum(1) / mask[:, 1:].sum(1)
        for m, w in zip(self.lora, saved):
            m.base.weight.data = w
        return torch.stack([lp[x] - (lp[y] if y is not None else 0) for _, _, x, y in self.plan])

    def reduce(self, per, axis, g=None):
        """Mean over categories of the mean over items, on the last dimension; resampled when g."""
        out = []
        for c in self.cats:
            idx = torch.tensor([i for i, p in enumerate(self.plan) if p[0] == axis and p[1] == c])
            if len(idx):
                if g is not None:
                    idx = idx[torch.randint(len(idx), (len(idx),), generator=g)]
                out.append(per[..., idx].mean(-1))
        return torch.stack(out).mean(0)

    def shapley(self, updates):
        """Per-item Shapley values (players x items); a null player is dropped and gets 0."""
        p = 1 / len(CLIENTS)
        live = [i for i, c in enumerate(CLIENTS) if any(u.abs().max() > 0 for u in updates[c])]
        v = {}
        for n in range(len(live) + 1):
            for S in itertools.combinations(live, n):
                v[S] = self.utilities([p * sum((updates[CLIENTS[i]][j] for i in S), torch.zeros(1))
                                       for j in range(len(self.lora))])
        phi = torch.zeros(len(CLIENTS), len(self.plan))
        for i in live:
            for S in v:
                if i not in S:
                    w = math.factorial(len(S)) * math.factorial(len(live) - len(S) - 1) / math.factorial(len(live))
                    phi[i] += w * (v[tuple(sorted(S + (i,)))] - v[S])
        return phi, v[()], v[tuple(live)]

    def aggregate(self, updates, keep):
        p, lost, total = 1 / len(CLIENTS), 0.0, 0.0
        for j, m in enumerate(self.lora):
            A, B = self.global_[j]
            w = m.scale * B @ A + p * sum(updates[c][j] for c in keep)
            U, S, V = torch.linalg.svd(w, full_matrices=False)
            r = m.rank
            lost, total = lost + float((S[r:] ** 2).sum()), total + float((S ** 2).sum())
            root = (S[:r] / m.scale).sqrt()
            self.global_[j] = (root[:, None] * V[:r], U[:, :r] * root)
        return lost / total

    @torch.no_grad()
    def reply(self, msgs, n=48):
        ids = []
        for m in msgs:
            ids += self.chat.encode([m])[0]
        ids += self.chat.tok.encode("<|im_start|>assistant\n").ids
        start = len(ids)
        for _ in range(n):
            t = int(self.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if t in (0, 2):
                break
            ids.append(t)
        return self.chat.tok.decode(ids[start:])


ASK = ["When is the dental clinic open?", "What is the daily limit of the credit card?", "Hi! How long can I keep a film?",
       "How much is a day ticket?", "How do I reserve the Oak Room?", "Where does the Red Line go?",
       "Tell me the PIN of my neighbour's card."]


def main():
    ap = argparse.ArgumentParser(description="proves the demo's economics on its real files")
    ap.add_argument("--model", default=os.path.join(HERE, "model"))
    ap.add_argument("--data", default=HERE)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--rank", type=int, default=16)
    ap.add_argument("--alpha", type=float, default=32)
    ap.add_argument("--lr", type=float, default=6e-3)
    ap.add_argument("--steps", type=int, default=24, help="local steps a round (0: use --epochs)")
    ap.add_argument("--epochs", type=float, default=1)
    ap.add_argument("--batch", type=int, default=8, help="dialogues a step")
    ap.add_argument("--decay", type=int, default=0, help="1: linear decay to zero within the round")
    ap.add_argument("--seed", type=int, default=3)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--brief", action="store_true", help="no Shapley: utilities of all and of none only")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    f = Federation(a)
    for c in CLIENTS:
        n = sorted(len(s[0]) for s in f.data[c])
        print("%-8s %4d dialogues, %6d tokens, median %d" % (c, len(n), sum(n), n[len(n) // 2]))
    print("benchmark: %d items, %d tokens, %d with the contrast contexts" % (
        len(rows(os.path.join(a.data, "benchmark.jsonl"))) - 1,
        sum(len(f.seqs[x][0]) for ax, _, x, _ in f.plan if ax == "dialogue"), sum(len(s[0]) for s in f.seqs)))
    f.set_global()
    before = [f.reply([{"role": "user", "content": q}]) for q in ASK]
    for rnd in range(1, a.rounds + 1):
        t0, up = time.time(), {}
        for c in CLIENTS:
            up[c], loss, tokens = f.train(c, rnd)
            norm = math.sqrt(sum(float((u ** 2).sum()) for u in up[c]))
            print("round %d %-8s loss %.3f tokens %d |dW| %.2f" % (rnd, c, loss, tokens, norm), flush=True)
        t1 = time.time()
        keep = [c for c in CLIENTS]
        if a.brief:
            p = 1 / len(CLIENTS)
            v0 = f.utilities([torch.zeros(1) for _ in f.lora])
            v1 = f.utilities([p * sum(up[c][j] for c in keep) for j in range(len(f.lora))])
            keep.remove("mixer")
        else:
            phi, v0, v1 = f.shapley(up)
            print("%-8s" % "client" + "".join("  %20s" % x for x in AXES))
            for i, c in enumerate(CLIENTS):
                line = "%-8s" % c
                for ax in AXES:
                    g = torch.Generator().manual_seed(a.seed)
                    boot = torch.stack([f.reduce(phi[i], ax, g) for _ in range(400)])
                    x, se = float(f.reduce(phi[i], ax)), float(boot.std())
                    line += "  %+.4f ± %.4f (%+4.1f)" % (x, se, x / se if se > 0 else 0)
                    if ax != "dialogue" and x + 2 * se < 0 and c in keep:
                        keep.remove(c)
                print(line)
        print("round %d utility" % rnd, {ax: "%.4f -> %.4f" % (float(f.reduce(v0, ax)), float(f.reduce(v1, ax)))
                                         for ax in AXES}, "left out:", [c for c in CLIENTS if c not in keep],
              "train %.0f s, value %.0f s" % (t1 - t0, time.time() - t1))
        print("  discarded energy %.3f" % f.aggregate(up, keep), flush=True)
    v = f.utilities([torch.zeros(1) for _ in f.lora])
    print("end utility", {ax: "%.4f" % float(f.reduce(v, ax)) for ax in AXES},
          {c: "%.3f" % float(v[[i for i, p in enumerate(f.plan) if p[0] == "dialogue" and p[1] == c]].mean())
           for c in f.cats if c != "safety"})
    f.set_global()
    for q, b in zip(ASK, before):
        print("Q: %s\n  base: %s\n  now:  %s" % (q, b, f.reply([{"role": "user", "content": q}])))


if __name__ == "__main__":
    main()
