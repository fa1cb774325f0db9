"""Text to learn a tokenizer from, and text kept back to measure it on."""

from tinyllm.data.preparation import count_bytes

MOST = 2_000_000  # characters that are kept back of a streamed text: enough to measure on


class Divided:
    """A Corpus or StreamedCorpus of which a share is kept back.

    A Corpus is divided by its `split`, just as a training run divides it: a tokenizer then learns nothing of the text
    that its models are measured on. A stream keeps back every so many-th document or part of one, MOST characters at
    most. share: between 0 (nothing) and 1 (neither included).

    held_out: list of str; of a stream it is complete when `read` has come to its end.
    """

    def __init__(self, corpus, share):
        self.corpus, self.share = corpus, share
        self.held_out = []
        self._texts = None
        if share and hasattr(corpus, "split"):
            self._texts, self.held_out = corpus.split(share)

    def read(self, progress=None):
        """The texts to learn from; progress(bytes read, bytes in all) is called now and then."""
        if not self.share:
            yield from self.corpus.read(progress)
        elif self._texts is None:
            yield from self._read_stream(progress)
        else:
            report = count_bytes(sum(len(text.encode("utf-8")) for text in self._texts), progress)
            for text in self._texts:
                yield text
                report(len(text.encode("utf-8")))

    def _read_stream(self, progress):
        every, held_out, room = max(2, round(1 / self.share)), [], MOST
        for number, text in enumerate(self.corpus.read(progress)):
            if number % every == 0 and room > 0:
                held_out.append(text[:room])
                room -= len(text)
            else:
                yield text
        self.held_out = held_out

    def __iter__(self):
        return self.read()

    def describe(self):
        """One line: name, documents, bytes, hash, note of the whole."""
        return self.corpus.describe()
