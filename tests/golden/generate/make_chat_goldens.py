#!/usr/bin/env python3
"""What Jinja renders for the chat formats that Meed knows.

Writes tests/golden/chat/cases.json: {"templates": {name: {text, bos, tokenizer}}, "cases":
[{"messages": [...], "texts": {name: [without, with generation prompt]}}]}. The template texts were
written for Meed: the shortest Jinja with the output of the published templates for dialogues of
system, user and assistant. With --against DIR (a folder with <family>/tokenizer_config.json for
qwen3 and llama3) every case is also rendered by the published templates and must agree.

    python3 tests/golden/generate/make_chat_goldens.py [--against DIR]
"""
import argparse
import hashlib
import json
import pathlib

from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT = pathlib.Path(__file__).resolve().parent.parent / "chat" / "cases.json"

TURN = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CHATML = "{% for m in messages %}" + TURN + "{% endfor %}" + ASK


def with_default(line):
    return ("{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\n" + line +
            "<|im_end|>\\n' }}{% endif %}" + CHATML)


QWEN3 = """\
{% set ns = namespace(asked=messages|length - 1, open=true) %}
{% for m in messages|reverse %}
{% set tool = m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>') %}
{% if ns.open and m.role == 'user' and not tool %}
{% set ns.open = false %}
{% set ns.asked = messages|length - 1 - loop.index0 %}
{% endif %}
{% endfor %}
{% for m in messages %}
{% if m.role != 'assistant' %}
""" + TURN + """
{% else %}
{% set parts = m.content.split('</think>') %}
{% set rest = parts[-1].lstrip('\\n') if parts|length > 1 else m.content %}
{% set thought = parts[0].rstrip('\\n').split('<think>')[-1].strip('\\n') if parts|length > 1 else '' %}
{{ '<|im_start|>assistant\\n' -}}
{% if loop.index0 > ns.asked and (loop.last or thought) %}
{{ '<think>\\n' + thought + '\\n</think>\\n\\n' + rest.lstrip('\\n') -}}
{% else %}
{{ rest -}}
{% endif %}
{{ '<|im_end|>\\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' -}}
{% if enable_thinking is defined and not enable_thinking %}
{{ '<think>\\n\\n</think>\\n\\n' -}}
{% endif %}
{% endif %}
"""
# Whitespace outside of tags is layout here; what the format writes is in the strings.
QWEN3 = "".join(line.replace(" -}}", " }}").replace("{%- ", "{% ") for line in QWEN3.splitlines())

HEAD = "'<|start_header_id|>' + ROLE + '<|end_header_id|>\\n\\n'"
LLAMA_TURN = "{{ " + HEAD.replace("ROLE", "m.role") + " + m.content|trim + '<|eot_id|>' }}"
LLAMA_ASK = "{% if add_generation_prompt %}{{ " + HEAD.replace("ROLE", "'assistant'") + " }}{% endif %}"
LLAMA3 = "{{ bos_token }}{% for m in messages %}" + LLAMA_TURN + "{% endfor %}" + LLAMA_ASK
LLAMA31 = ("{{ bos_token }}{% set own = messages[0].role == 'system' %}{{ " +
           HEAD.replace("ROLE", "'system'") +
           " + 'Cutting Knowledge Date: December 2023\\nToday Date: ' +"
           " date_string|default('26 Jul 2024') + '\\n\\n' +"
           " (messages[0].content|trim if own else '') + '<|eot_id|>' }}"
           "{% for m in (messages[1:] if own else messages) %}" + LLAMA_TURN + "{% endfor %}" + LLAMA_ASK)

BEGIN = "<|begin_of_text|>"
TEMPLATES = {
    "chatml": (CHATML, "", "smollm2_style"),
    "smollm2": (with_default("You are a helpful AI assistant named SmolLM, trained by Hugging Face"), "",
                "smollm2_style"),
    "qwen2.5": (with_default("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), "",
                "qwen_style"),
    "chatml_house": (with_default("Don\\'t guess.\\nSay \\\"I do not know\\\"."), "", "smollm2_style"),
    "chatml_bos": ("{{ bos_token }}" + CHATML, "<|endoftext|>", "smollm2_style"),
    "qwen3": (QWEN3, "", "qwen_style"),
    "llama3": (LLAMA3, BEGIN, "llama3_style"),
    "llama3.1": (LLAMA31, BEGIN, "llama3_style"),
}


def dialogue(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[r], "content": c} for r, c in turns]


CASES = [
    dialogue(("u", "Hello")),
    dialogue(("u", "Hello"), ("a", "Hi there!")),
    dialogue(("s", "Be brief."), ("u", "What is 2+2?"), ("a", "4")),
    dialogue(("u", "One?"), ("a", "1"), ("u", "Two?"), ("a", "2"), ("u", "Three?")),
    dialogue(("u", "One?"), ("a", "1"), ("u", "Two?"), ("a", "2"), ("u", "Three?"), ("a", "3")),
    dialogue(("s", "Du bist höflich."), ("u", "Größe?"), ("a", "Zwei Meter — ungefähr."), ("u", "中文?"),
             ("a", "可以，当然。🙂")),
    dialogue(("u", "a"), ("s", "Now be formal."), ("a", "Yes."), ("u", "b")),
    dialogue(("a", "I speak first."), ("u", "Well?"), ("a", "Indeed.")),
    dialogue(("s", "Only a system line.")),
    dialogue(("a", "Only a reply.")),
    dialogue(("u", ""), ("a", "")),
    dialogue(("u", "x"), ("a", "first"), ("a", "second")),
    dialogue(("u", "  spaces\t\n"), ("a", "trailing blank \n"), ("u", "\u00a0\u3000wide\u2003\x1c")),
    dialogue(("u", "code:\n```c\nint x = 0;\n```\n"), ("a", "Line one.\n\nLine two.")),
    dialogue(("u", "Think."), ("a", "<think>\nThree is odd.\n</think>\n\nOdd.")),
    dialogue(("u", "Think."), ("a", "<think>a</think>b"), ("u", "Again."), ("a", "<think>c</think>\n\n\nd")),
    dialogue(("u", "Think."), ("a", "<think>\n\n</think>\n\nNo thought.")),
    dialogue(("u", "Think."), ("a", "no open tag\n</think>\nrest")),
    dialogue(("u", "Think."), ("a", "<think>x<think>y</think>z</think>w")),
    dialogue(("u", "q"), ("a", "<think>t1</think>call"), ("u", "<tool_response>\n7\n</tool_response>"),
             ("a", "<think>t2</think>It is 7.")),
    dialogue(("u", "q"), ("a", "call"), ("u", "<tool_response>7</tool_response>"), ("a", "Seven.")),
    dialogue(("u", "<tool_response>7</tool_response>"), ("a", "Seven.")),
    dialogue(("u", "q"), ("a", "\n\nleading newlines")),
    dialogue(("u", "special <|im_end|> and <|eot_id|> inside"), ("a", "<|im_start|>user\nfake<|im_end|>")),
]


def environment():
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)


def render(text, bos, messages, ask):
    return environment().from_string(text).render(
        messages=messages, add_generation_prompt=ask, bos_token=bos, enable_thinking=False)


def compare(folder):
    """The published Llama 3 text opens a reply always; it is compared with the prompt on."""
    for name, asks in (("qwen3", (False, True)), ("llama3", (True,))):
        config = json.loads((folder / name / "tokenizer_config.json").read_text())
        published = config["chat_template"]
        for messages in CASES:
            for ask in asks:
                want = render(published, config.get("bos_token") or "", messages, ask)
                got = render(TEMPLATES[name][0], TEMPLATES[name][1], messages, ask)
                assert got == want, (name, ask, messages, got, want)
        print(name, "agrees with", hashlib.sha256(published.encode()).hexdigest())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=pathlib.Path)
    args = parser.parse_args()
    if args.against:
        compare(args.against)
    tree = {
        "templates": {n: {"text": t, "bos": b, "tokenizer": k} for n, (t, b, k) in TEMPLATES.items()},
        "cases": [{"messages": m, "texts": {n: [render(t, b, m, a) for a in (False, True)]
                                            for n, (t, b, _) in TEMPLATES.items()}} for m in CASES],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(tree, indent=0) + "\n")
    print(len(CASES), "cases,", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
