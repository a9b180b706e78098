#!/usr/bin/env python3
"""Small tokenizers and the ids that the reference gives for hard texts.

Writes tests/golden/tokenizer/<name>.json (a tokenizer.json trained here on the few lines below)
and tests/golden/tokenizer/<name>.ids.json: {"texts": [...], "special": [[ids]...],
"plain": [[ids]...]}, where "plain" treats special tokens as ordinary text. The reference is the
`tokenizers` package (0.23); the C tests need neither it nor Python.

    python3 tests/golden/generate/make_tokenizer_goldens.py
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).resolve().parent.parent / "tokenizer"

CORPUS = """The aggregator weighs every update before it pays for it, and nobody is paid twice.
She'll say they're late; we've heard that it's the train's fault, and I'd rather walk.
In 1998 the bridge cost 4,250,000 crowns, 17% more than planned (see page 243).
def add(left, right):\n    return left + right  # a sum\n\nprint(add(2, 40))
for (int i = 0; i < count; i++) {\n\ttotal += values[i] * 0.5f;\n}
Der Bäcker größte Sorge ist das Frühstück; die Straße führt über die Brücke nach Köln.
L'été dernier, la forêt était déjà brûlée, et l'œuvre du théâtre fut annulée à Besançon.
El niño soñó con la montaña más alta, ¿verdad? ¡Qué alegría, señor Núñez!
Быстрая река течёт под старым мостом, и ни один фонарь не горит до утра.
Η γρήγορη αλεπού πηδά πάνω από το τεμπέλικο σκυλί, και ο ήλιος δύει αργά.
سافر التاجر من المدينة إلى القرية قبل الفجر، ومعه ثلاثة صناديق من التمر.
הסוחר הגיע אל השוק בבוקר ומכר את כל התפוחים לפני הצהריים.
छोटी नदी पहाड़ से निकलकर गाँव के पास से बहती है और खेतों को पानी देती है।
แม่น้ำสายเล็กไหลผ่านหมู่บ้านและทุ่งนาในตอนเช้า
小さな川が山から流れて、村のそばを通り、海へ出ます。カタカナもあります。
一条小河从山上流下来，经过村庄，流进大海。今天的天气很好，我们去公园散步。
작은 강이 산에서 흘러 마을 옆을 지나 바다로 갑니다.
Dòng sông nhỏ chảy từ trên núi xuống, đi qua ngôi làng rồi ra biển.
Küçük ırmak dağdan iner, köyün yanından geçer ve İstanbul'a doğru akar.
Mała rzeka płynie z gór, mija wieś i wpada do morza; źdźbło trawy drży.
Emoji: 🙂 👍🏽 👩‍🚀 🇳🇴 ❤️ and signs: € £ ¥ § ± × ÷ ≤ ≥ → ∑ √ ½ Ⅷ ²
""".split("\n")

GPT2 = None  # the ByteLevel stage's own pattern
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def hard_texts(controls):
    rng = random.Random(5)
    texts = CORPUS + [
        "", " ", "  ", "\n", "\n\n", "\t", " \n \n\n x", "x \n", "   x   y   ", "\r\n\r\n a\r\n",
        "don't DON'T don\u2019t 'S 'Re 'll'LL 'x", "1 12 123 1234 12345 1,234.5 \u0663\u0664 \u00b2\u00bd\u2167",
        "e\u0301 \u00e9 A\u030a \u212b \u1e9b\u0323 \uac00 \u1100\u1161 \u0958", "\ufeffbom", "a\u0000b",
        "\u00a0nbsp\u3000wide\u2003em\u180emvs\u200bzw\u0085nel\u2028ls", "\u017f 'ſ K 'Ve",
        "!!!???...---___***", "a_b-c.d/e\\f@g#h$i%j^k&l", "<|x|> <| |> <|im_start", "||||<<<>>>",
        "\U0001f9d1\u200d\U0001f33e\U0001f469\u200d\u2764\ufe0f\u200d\U0001f468", "\U00010348\U0001d54f",
        "supercalifragilisticexpialidocious" * 6, "ab" * 400, "的" * 120, " " * 130, "\n" * 90,
        "aaaa bbbb aaaabbbb " * 12, "0" * 100, "=" * 77 + "\n" + "-" * 77,
    ]
    for control in controls:
        texts += [control, f" {control} ", f"hello{control}world", f"{control}{control}\n{control}",
                  control[:-1], control.upper()]
    pool = ["'s", "'LL", " ", "  ", "\n", "\r\n", "\t", "the", " The", "é", "e\u0301", "中文", "1",
            "12", "1234", "!", "...", "🙂", "\u00a0", "\u3000", "\u200b", "नदी", "γρ", "ß", "_", "-",
            "\u2028"] + controls
    for _ in range(60):
        texts.append("".join(rng.choice(pool) for _ in range(rng.randint(2, 14))))
    return texts


def train(pre, normalizer, controls, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=[AddedToken(c, special=True) for c in controls])
    tokenizer.train_from_iterator([line for line in CORPUS for _ in range(3)], trainer)
    return tokenizer


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def write(name, text, controls):
    """Checks the file in as text: what the reference computes comes from the bytes written."""
    path = OUT / f"{name}.json"
    path.write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(path))
    texts = hard_texts(controls)
    rows = {"texts": texts}
    for key, plain in (("special", False), ("plain", True)):
        tokenizer.encode_special_tokens = plain
        rows[key] = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
    ids = OUT / f"{name}.ids.json"
    ids.write_text(json.dumps(rows, separators=(",", ":")) + "\n")
    for file in (path, ids):
        assert file.stat().st_size < 100_000, (file, file.stat().st_size)
    print(name, tokenizer.get_vocab_size(), len(texts), path.stat().st_size, ids.stat().st_size)


def compact(tokenizer, change=None):
    tree = json.loads(tokenizer.to_str())
    if change:
        change(tree)
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")) + "\n"


def llama3_quirks(tree):
    """ignore_merges, and whole words that no merge reaches any more."""
    model = tree["model"]
    model["ignore_merges"] = True
    made = ["".join(m) for m in model["merges"]]
    whole = [w for w in made if w.startswith("Ġ") and len(w) > 4 and
             not any(w in (m[0], m[1]) for m in model["merges"])]
    model["merges"] = [m for m in model["merges"] if "".join(m) not in whole[:12]]
    tree["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [0],
                                                 "tokens": ["<|begin_of_text|>"]}}}


def legacy(tree):
    """Merges as strings, no model type: how older files are written."""
    tree["model"]["merges"] = [" ".join(m) for m in tree["model"]["merges"]]
    del tree["model"]["type"]
    del tree["model"]["byte_fallback"]
    del tree["model"]["ignore_merges"]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)

    controls = ["<|endoftext|>"]
    write("gpt2_style", compact(train(byte_level, None, controls, 900), legacy), controls)

    controls = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                "<|eot_id|>"]
    write("llama3_style", compact(train(split(LLAMA3), None, controls, 900), llama3_quirks), controls)

    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    extra = ["<think>", "</think>", "<tool_response>", "</tool_response>"]
    qwen = train(split(QWEN), normalizers.NFC(), controls, 900)
    qwen.add_tokens([AddedToken(c, normalized=False) for c in extra])
    write("qwen_style", compact(qwen), controls + extra)

    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                      pre_tokenizers.ByteLevel(add_prefix_space=False)])
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    write("smollm2_style", compact(train(digits, None, controls, 900)), controls)

    odd = pre_tokenizers.Sequence([
        pre_tokenizers.Split("...", behavior="isolated"),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=True)])
    variants = train(odd, normalizers.Sequence([normalizers.NFC()]), ["[PAD]"], 700)
    extra = [AddedToken("[LEFT]", lstrip=True, normalized=False),
             AddedToken("[RIGHT]", rstrip=True, normalized=False),
             AddedToken("[BOTH]", lstrip=True, rstrip=True, normalized=True),
             AddedToken("word", single_word=True, normalized=True),
             AddedToken("caf\u00e9", normalized=True), AddedToken("[LEFT][RIGHT]", normalized=False)]
    variants.add_tokens(extra)
    write("variants", compact(variants),
          ["[PAD]"] + [t.content for t in extra] + ["cafe\u0301", "sword words word", "\u00a0 [LEFT]",
                                                    "[RIGHT]\u3000\n", "[LEFT] [RIGHT]  [BOTH]"])


if __name__ == "__main__":
    main()
