"""What OpenAI's rank files do not hold: how their text is cut, and their special tokens.

Source: `openai_public.py` of the `tiktoken` package.
"""

FIM = {"<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260}

RANK_FILES = {
    "r50k_base": ("gpt2", {"<|endoftext|>": 50256}),
    "cl100k_base": ("gpt4", {"<|endoftext|>": 100257, **FIM, "<|endofprompt|>": 100276}),
    "o200k_base": ("gpt4o", {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
}
"""Dict file name without `.tiktoken` -> (pattern, dict special token -> id)."""
