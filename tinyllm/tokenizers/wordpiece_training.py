"""Learning a WordPiece vocabulary: byte-pair encoding over letters, of which those inside a word are written ##x.

Of Schuster and Nakajima's trainer it is known that it joins the two pieces that make the text likeliest, often given as
the largest count(ab) / (count(a) count(b)); it was never published. This one joins the most frequent pair, as Hugging
Face's WordPieceTrainer does, with whose vocabularies ours are equal.
Source: Sennrich, Haddow, Birch 2016, section 3.2; Schuster and Nakajima 2012, "Japanese and Korean Voice Search".
"""

import heapq
from collections import Counter, defaultdict
from itertools import pairwise

CONTINUATION = "##"


def alphabet_of(word_counts, limit):
    """The letters of the words, at most the `limit` most frequent, in code point order.

    word_counts: dict word -> how often it occurs. Of letters that are equally frequent the smaller code points stay.
    """
    counts = Counter()
    for word, count in word_counts.items():
        for letter in word:
            counts[letter] += count
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:limit])


def symbols_of(word_counts, alphabet):
    """The vocabulary to begin with: each letter, then each that occurs inside a word as ##x. A list of str."""
    inside = {letter for word in word_counts for letter in word[1:]}
    return [*alphabet, *(CONTINUATION + letter for letter in alphabet if letter in inside)]


def learn_pieces(word_counts, symbols, number, progress=None):
    """The first `number` pieces that are joined of others; fewer where every word is one piece by then.

    word_counts: dict word -> how often it occurs; letters that are not among the symbols are passed over.
    symbols: what `symbols_of` gives, in id order. progress: called with (pieces made, number).
    Returns a list of str, all different: the same letters are always joined in the same order.

    Tie rule: of the most frequent pairs the one with the smallest ids, left id first, ids being the place among the
    symbols, then in the order made. The outcome does not depend on the order of the text.
    """
    names, ids = list(symbols), {symbol: token for token, symbol in enumerate(symbols)}
    words = [spelled(word, ids) for word in word_counts]
    frequencies = list(word_counts.values())
    counts, places = Counter(), defaultdict(set)
    for place, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += frequencies[place]
            places[pair].add(place)
    # The heap may hold outdated counts. Those of known pairs only fall, so what lies on top is at least as large as the
    # truth: an outdated entry is put back with its present count, and a correct one is the maximum.
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    while heap and len(names) < len(symbols) + number:
        negative, pair = heapq.heappop(heap)
        if counts[pair] != -negative:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        made = len(names)
        names.append(names[pair[0]] + names[pair[1]].removeprefix(CONTINUATION))
        grown = set()
        for place in places.pop(pair):
            for new in join(pair, made, place, words, frequencies[place], counts):
                places[new].add(place)
                grown.add(new)
        del counts[pair]
        for new in grown:
            heapq.heappush(heap, (-counts[new], new))
        if progress is not None:
            progress(len(names) - len(symbols), number)
    return names[len(symbols) :]


def spelled(word, ids):
    """The ids of a word's letters, those inside it as ##x."""
    symbols = [word[0], *(CONTINUATION + letter for letter in word[1:])]
    return [ids[symbol] for symbol in symbols if symbol in ids]


def join(pair, made, place, words, frequency, counts):
    """Replace `pair`, from left to right, by the id `made` in one word, keep counts true; return the new pairs."""
    word, joined, at = words[place], [], 0
    while at < len(word):
        found = tuple(word[at : at + 2]) == pair
        joined.append(made if found else word[at])
        at += 2 if found else 1
    if len(joined) == len(word):
        return set()  # an earlier piece took the pair out of this word
    for old in pairwise(word):
        counts[old] -= frequency
    for new in pairwise(joined):
        counts[new] += frequency
    words[place] = joined
    return {new for new in pairwise(joined) if made in new}
