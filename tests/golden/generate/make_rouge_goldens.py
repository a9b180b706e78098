#!/usr/bin/env python3
"""ROUGE-L of a thousand random pairs of texts, by other programs.

Writes tests/golden/rouge/pairs.jsonl: {"candidate", "reference", "common", "words": [c, r]}, and
"google": F1 by rouge_score (no stemmer) where both texts are ASCII. `common` is the quadratic table
everybody knows; words follow the rule of engine/rouge_words.h, here by Python's unicodedata, and on
ASCII must be rouge_score's own. Texts are drawn from seven scripts, with accents in both normal
forms, soft hyphens, punctuation and emoji; some are empty, some hundreds of words long.

    python3 tests/golden/generate/make_rouge_goldens.py        # needs rouge-score 0.1.2
"""
import json
import pathlib
import random
import unicodedata

from rouge_score import rouge_scorer, tokenizers

OUT = pathlib.Path(__file__).resolve().parent.parent / "rouge" / "pairs.jsonl"
WORDS = {
    "latin": "the a of Library Card costs ten Crowns a year and don't can't U.S. 7.20 x-ray 3rd it it "
             "is is open snake_case e-mail".split(),
    "accented": ["café", "cafe\u0301", "Éclair", "naïve", "STRASSE", "straße", "İzmir", "Ωmega",
                 "soft\u00adhyphen", "ﬁne", "ﬁn", "n°5"],
    "cyrillic": "билет стоит Десять рублей и ещё Один ДЕНЬ в год".split(),
    "greek": "το εισιτήριο ΚΟΣΤΙΖΕΙ δέκα ευρώ τον χρόνο ΟΔΟΣ οδος".split(),
    "arabic": ["التذكرة", "بعشرة", "دنانير", "في", "السنة", "كِتَاب", "می\u200cخواهم"],
    "devanagari": ["टिकट", "की", "क़ीमत", "दस", "रुपये", "है", "हिन्दी"],
    "hangul": "표는 일 년에 열 원 입니다".split(),
    "han": list("图书证每年十元借书免费") + ["東京", "カード", "ひらがな"],
    "thai": ["บัตร", "ห้องสมุด", "ราคา", "สิบ", "บาท"],
}
MARKS = [" ", " ", " ", " ", " ", ", ", ". ", "\n", " – ", "… ", "? ", " 🙂 ", " $", "\u3000"]
UNSPACED = [(0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3021, 0x3029),
            (0x3031, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
            (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0xFF66, 0xFF9F),
            (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF)]


def lower(char):
    folded = char.lower()
    return folded if len(folded) == 1 else folded[0]  # İ: Unicode's simple mapping is i


def words_of(text):
    words, run = [], False
    for char in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(char)
        if kind == "Cf":
            continue
        if kind[0] == "M" and words and run is not None:
            words[-1] += lower(char)
        elif kind[0] in "LNM":
            alone = any(low <= ord(char) <= high for low, high in UNSPACED) and kind[0] != "M"
            if alone or run is not True:
                words.append("")
            words[-1] += lower(char)
            run = not alone
        else:
            run = None
    return words


def common_words(left, right):
    row = [0] * (len(right) + 1)
    for a in left:
        before = 0
        for j, b in enumerate(right):
            before, row[j + 1] = row[j + 1], before + 1 if a == b else max(row[j + 1], row[j])
    return row[-1]


def draw_text(rng, length):
    scripts = rng.choice([["latin"]] * 9 + [[name] for name in WORDS] + [list(WORDS)])
    pieces = []
    for _ in range(length):
        pieces += [rng.choice(WORDS[rng.choice(scripts)]), rng.choice(MARKS[:12] if scripts != ["latin"]
                                                                       else MARKS[:8])]
    return "".join(pieces)


def draw_pair(rng, number):
    if number < 40:  # several blocks of 64, of few different words
        letters = rng.choice(["ab", "abcd", "abcdefghijkl"])
        return [" ".join(rng.choices(letters, k=rng.randint(60, 300))) for _ in range(2)]
    first = draw_text(rng, rng.choice([0, 1, 2, 5, 8, 12]))
    if rng.random() < 0.4:
        return first, draw_text(rng, rng.choice([0, 1, 3, 6, 10]))
    kept = [piece for piece in first.split(" ") if rng.random() < 0.8]  # a copy with gaps
    return first, " ".join(kept + [draw_text(rng, rng.choice([0, 1, 3]))])


def main():
    rng = random.Random(17)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    google_words = tokenizers.DefaultTokenizer(use_stemmer=False).tokenize
    lines = []
    for number in range(1000):
        candidate, reference = draw_pair(rng, number)
        left, right = words_of(candidate), words_of(reference)
        line = {"candidate": candidate, "reference": reference,
                "common": common_words(left, right), "words": [len(left), len(right)]}
        if candidate.isascii() and reference.isascii():
            assert left == google_words(candidate) and right == google_words(reference)
            line["google"] = round(scorer.score(reference, candidate)["rougeL"].fmeasure, 12)
        lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
