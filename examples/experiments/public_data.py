#!/usr/bin/env python3
"""Turns public data into pools and benchmarks for FedPIT's experiments.

  public_data.py DATA [--out ../../out/public] [--seed 1]

DATA holds instruct/medical/medquad.jsonl.zst (MedQuAD, Ben Abacha and
Demner-Fushman 2019, CC BY 4.0: question, answer, source) and
instruct/service/multidogo_turns.jsonl.zst (MultiDoGO, Peskov et al. 2019,
CDLA-Permissive: customers' turns with slots). Needs the zstd program.

medquad/SOURCE.jsonl    one of nine sites: a question, the answer's first
                        sentences. No focus of the benchmark is in a pool.
multidogo/DOMAIN.jsonl  what a customer said before, then a turn with personal
                        data in it, invented by the people who played the
                        customers; the line labels them as "secrets". No
                        conversation of the benchmark is in a pool, and no
                        secret of a pool stands in the benchmark.
*/benchmark.jsonl       held-out dialogues of every pool, one axis
"""
import argparse
import collections
import json
import os
import random
import re
import subprocess

ANSWER_WORDS = range(8, 41)
PERSONAL = {"name", "booking_confirmation_number", "email_address", "phone_number", "phonenumber", "ssn",
            "policyid", "claimid", "account_id", "username", "address"}


def rows(path):
    done = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def line(question, answer, **more):
    return dict({"messages": [{"role": "user", "content": question},
                              {"role": "assistant", "content": answer}]}, **more)


def write(folder, name, lines):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w") as out:
        for one in lines:
            out.write(json.dumps(one, ensure_ascii=False) + "\n")


def write_benchmark(folder, name, axis, held):
    head = {"meed_benchmark": 1, "name": name, "axes": [{"name": axis, "kind": "likelihood", "weight": 1.0}]}
    write(folder, "benchmark.jsonl", [head] + [
        {"id": "%s-%02d" % (pool, i), "category": pool, "axes": [axis], "messages": one["messages"]}
        for pool in sorted(held) for i, one in enumerate(held[pool])])


def first_sentences(text):
    taken = ""
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
        longer = (taken + " " + sentence).strip()
        if len(longer.split()) >= ANSWER_WORDS.stop:
            break
        taken = longer
    return taken


def medquad(path, folder, rng, held_out, most):
    by_source = collections.defaultdict(list)
    for row in rows(path):
        answer = first_sentences(row["output"])
        if len(answer.split()) in ANSWER_WORDS and not answer.startswith(("Key Points", "What ")):
            by_source[row["source"]].append((row["focus"].lower(), line(row["instruction"], answer)))
    held, foci = {}, set()
    for source in sorted(by_source):
        rng.shuffle(by_source[source])
        held[source] = [one for _, one in by_source[source][:held_out]]
        foci.update(focus for focus, _ in by_source[source][:held_out])
    for source, all_of_it in by_source.items():
        write(folder, source + ".jsonl", [one for focus, one in all_of_it if focus not in foci][:most])
    write_benchmark(folder, "medquad", "answer", held)


def spans(row):
    """Personal slots of a turn as the text that fills them."""
    found, open_slot = [], None
    for word, slot in zip(row["text"].split(), row["slots"].split()):
        if slot in PERSONAL and slot == open_slot:
            found[-1] += " " + word
        elif slot in PERSONAL:
            found.append(word)
        open_slot = slot
    return [span for span in found if len(span) >= 4]


def multidogo(path, folder, rng, held_out, most):
    talks = collections.defaultdict(list)
    for row in rows(path):
        talks[row["domain"], row["conv"]].append(row)
    by_domain = collections.defaultdict(list)
    for (domain, _), turns in sorted(talks.items()):
        turns.sort(key=lambda row: row["turn"])
        for i, row in enumerate(turns[1:], 1):
            words = row["text"].split()
            if spans(row) and len(words) == len(row["slots"].split()) and len(words) <= 30:
                before = " / ".join(t["text"] for t in turns[max(0, i - 2):i])
                by_domain[domain].append(line("%s customer: %s" % (domain, before), row["text"],
                                              secrets=spans(row)))
                break  # one turn of a conversation
    held = {}
    for domain in sorted(by_domain):
        rng.shuffle(by_domain[domain])
        held[domain] = by_domain[domain][:held_out]
    known = " ".join(m["content"] for lines in held.values() for one in lines for m in one["messages"])
    for domain, lines in by_domain.items():
        write(folder, domain + ".jsonl",
              [one for one in lines[held_out:] if not any(secret in known for secret in one["secrets"])][:most])
    write_benchmark(folder, "multidogo", "turn", held)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--out", default=os.path.join(here, "..", "..", "out", "public"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    medquad(os.path.join(options.data, "instruct/medical/medquad.jsonl.zst"),
            os.path.join(options.out, "medquad"), random.Random(options.seed), 4, 300)
    multidogo(os.path.join(options.data, "instruct/service/multidogo_turns.jsonl.zst"),
              os.path.join(options.out, "multidogo"), random.Random(options.seed), 12, 300)


if __name__ == "__main__":
    main()
