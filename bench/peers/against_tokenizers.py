"""What bench/tokenizer.ts measures, with the Hugging Face library: against_tokenizers.py TEXT [VOCABULARY]

The same text, settings and pieces; its own threads. encode_batch_fast computes ids without offsets.
"""
import json
import os
import resource
import sys
import time

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

path, vocabulary = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 32000
PIECE, PIECES_AT_ONCE = 1 << 20, 8
size = os.path.getsize(path)


def measured(name, work):
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = work()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"name": name, "seconds": round(seconds, 2), "megabytesPerSecond": round(size / 1e6 / seconds, 1),
                      "processorSeconds": round(processor, 2), "peakMegabytes": round(after.ru_maxrss / 1000)}), flush=True)
    return result


def pieces():
    with open(path, encoding="utf-8", newline="") as file:
        while lines := file.readlines(PIECE):
            yield "".join(lines)


def encode():
    tokens, batch = 0, []
    for piece in pieces():
        batch.append(piece)
        if len(batch) == PIECES_AT_ONCE:
            tokens += sum(len(each.ids) for each in tokenizer.encode_batch_fast(batch, add_special_tokens=False))
            batch = []
    return tokens + sum(len(each.ids) for each in tokenizer.encode_batch_fast(batch, add_special_tokens=False))


tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(vocab_size=vocabulary, min_frequency=2, special_tokens=["<|endoftext|>"],
                              initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
measured("train", lambda: tokenizer.train([path], trainer))
measured("encode", encode)
