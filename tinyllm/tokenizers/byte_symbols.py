"""GPT-2's printable spelling of bytes, in which vocabulary files write tokens that are not valid text.

Source: Radford et al. 2019, `bytes_to_unicode` in OpenAI's GPT-2 code. The 188 bytes that Latin-1 prints keep their
character; the other 68 (control characters, space, byte 173) get the characters from U+0100 on, so a space is "Ġ".
"""

PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
UNPRINTABLE = [byte for byte in range(256) if byte not in PRINTABLE]

# The byte behind each of the first 256 token ids: GPT-2 numbers "!" 0, and so do its descendants.
BYTE_ORDER = (*PRINTABLE, *UNPRINTABLE)

SYMBOLS = {byte: chr(byte) for byte in PRINTABLE} | {byte: chr(256 + n) for n, byte in enumerate(UNPRINTABLE)}
BYTES = {symbol: byte for byte, symbol in SYMBOLS.items()}


def spell(token):
    """The printable spelling of bytes: `spell(b" the") == "Ġthe"`."""
    return "".join([SYMBOLS[byte] for byte in token])


def unspell(symbols):
    """The bytes behind a printable spelling; KeyError for a character that spells no byte."""
    return bytes([BYTES[symbol] for symbol in symbols])
