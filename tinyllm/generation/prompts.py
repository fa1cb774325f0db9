"""Where a text begins and where it ends, in the ids of a model."""

from tinyllm.errors import UserError


def prompt_ids(tokenizer, prompt, *, separated=True):
    """The ids of a prompt, put as the model saw texts begin.

    separated: the model learned from many texts with end-of-text between them, so one stands before the prompt. In a
    corpus of one text it never occurs: its embedding is as it was at the start, and nothing should hang on it. There,
    an empty prompt is the beginning of a line.
    """
    ids = tokenizer.encode(prompt)
    if separated and tokenizer.end_of_text is not None:
        return [tokenizer.end_of_text, *ids]
    return ids or beginning_of_line(tokenizer)


def beginning_of_line(tokenizer):
    """The ids of what precedes a line; a word where the tokenizer knows no lines, or a sentence where it knows no
    spaces; its first token if none of these.
    """
    for text in "\n .":
        try:
            ids = tokenizer.encode(text)
        except UserError:  # a character tokenizer that was not trained on it
            continue
        if ids:  # WordPiece makes nothing of white space
            return ids
    return [0]


def stop_ids(tokenizer):
    """The ids that end a text: end-of-text, or none."""
    return () if tokenizer.end_of_text is None else (tokenizer.end_of_text,)
