/* A program of its own around a generated model, to be run under the sanitizers: trains (where TRAINS is 1), evaluates
 * and decodes at odd sizes with one, two and three threads, which must give the same bits. It prints nothing but what
 * is wrong. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "malc.h"

enum { BATCH = 3, TIME = 21, CONTEXT = 29, MOST = BATCH * TIME };

/* All that the calls give, in one list of floats: losses, norms, logits and the weights in the end. */
typedef struct {
  float *values;
  int64_t count, room;
} record;

static void keep(record *kept, const float *values, int64_t count) {
  if (kept->count + count > kept->room) {
    kept->room = 2 * (kept->count + count);
    kept->values = realloc(kept->values, (size_t)kept->room * sizeof(float));
    if (!kept->values) abort();
  }
  memcpy(kept->values + kept->count, values, (size_t)count * sizeof(float));
  kept->count += count;
}

static void keep_result(record *kept, malc_result result) {
  const float values[] = { (float)result.loss, (float)result.gradient_norm, (float)result.scored };
  keep(kept, values, 3);
}

static void expect(bool right, const char *what, const malc_model *model) {
  if (right) return;
  printf("%s: %s\n", what, malc_message(model));
  exit(1);
}

static int64_t parameter_floats(int32_t index) {
  int64_t count = 1;
  for (int32_t axis = 0; axis < malc_parameter_rank(index); axis++) count *= malc_parameter_dimension(index, axis);
  return count;
}

/* Decodes texts of different lengths, and then all texts evenly, from their first position until the cache is full. */
static void decode(malc_model *model, const int32_t *tokens, int64_t vocabulary, float *logits, record *kept) {
  static const int32_t uneven[][BATCH] = { { 10, 4, TIME }, { 3, 0, 1 }, { 0, 9, 0 }, { 1, 1, 1 }, { 0, 0, 2 } };
  int32_t starts[BATCH] = { 0 };
  for (size_t n = 0; n < sizeof uneven / sizeof *uneven; n++) {
    const int32_t *counts = uneven[n];
    int64_t time = 0;
    for (int b = 0; b < BATCH; b++) time = counts[b] > time ? counts[b] : time;
    expect(malc_decode(model, tokens, NULL, BATCH, time, starts, counts, logits) == MALC_OK, "uneven decode", model);
    keep(kept, logits, BATCH * vocabulary);
    for (int b = 0; b < BATCH; b++) starts[b] += counts[b];
  }
  /* The first two alone; the third text stays as it is. */
  expect(malc_decode(model, tokens, NULL, 2, 2, starts, NULL, logits) == MALC_OK, "decode of two", model);
  keep(kept, logits, 2 * vocabulary);

  memset(starts, 0, sizeof starts);
  for (int32_t time = 10; starts[0] + time <= CONTEXT; time = time == 10 ? 3 : 1) {
    expect(malc_decode(model, tokens, NULL, BATCH, time, starts, NULL, logits) == MALC_OK, "decode", model);
    keep(kept, logits, BATCH * vocabulary);
    for (int b = 0; b < BATCH; b++) starts[b] += time;
  }
  expect(malc_decode(model, tokens, NULL, BATCH, 1, starts, NULL, logits) == MALC_BAD_ARGUMENT, "full cache", model);
  const int32_t none[BATCH] = { 0 };
  expect(malc_decode(model, tokens, NULL, BATCH, 1, none, none, logits) == MALC_BAD_ARGUMENT, "no tokens", model);
}

static record run(int32_t threads, int32_t training) {
  const int32_t vocabulary = (int32_t)malc_parameter_dimension(0, 0);
  int32_t tokens[2 * MOST], labels[2 * MOST];
  for (int32_t i = 0; i < 2 * MOST; i++) {
    tokens[i] = (i * 7 + i / 5) % vocabulary;
    labels[i] = i % 6 == 0 ? -1 : (i * 3 + 1) % vocabulary;
  }
  float *logits = malloc((size_t)MOST * (size_t)vocabulary * sizeof(float));
  record kept = { NULL, 0, 0 };
  malc_model *model = NULL;
  malc_result result;
  const malc_options options = { BATCH, TIME, CONTEXT, training, threads, 7, training, -1 };
  expect(logits && malc_create(&options, &model) == MALC_OK, "create", model);
  expect(malc_initialize(model, 5) == MALC_OK, "initialize", model);

  /* The second step has fewer rows than any block; the first adds two micro-batches up. */
  malc_update update = { 0.01f, 0.1f, 1.0f, 0.9f, 0.95f, 1e-8f, 0.9f, 0.9f, 1 };
  if (training) {
    expect(malc_step(model, tokens, labels, NULL, 2, BATCH, TIME, &update, &result) == MALC_OK, "step", model);
    keep_result(&kept, result);
    update.update = 2;
    expect(malc_step(model, tokens + 1, labels + 1, NULL, 1, 1, 5, &update, &result) == MALC_OK, "small step", model);
    keep_result(&kept, result);
    expect(malc_swap_averages(model) == MALC_OK, "averages", model);
  } else {
    const int code = malc_step(model, tokens, labels, NULL, 1, 1, 1, &update, &result);
    expect(code == MALC_BAD_ARGUMENT, "no training", model);
  }

  expect(malc_evaluate(model, tokens, labels, NULL, 2, 13, &result) == MALC_OK, "evaluate", model);
  keep_result(&kept, result);
  expect(malc_forward(model, tokens, NULL, BATCH, TIME, logits) == MALC_OK, "forward", model);
  keep(&kept, logits, (int64_t)MOST * vocabulary);
  decode(model, tokens, vocabulary, logits, &kept);

  /* Weights that were written from outside, and what is made of them. */
  float *weights = malc_parameter_address(model, 0, MALC_DATA);
  for (int64_t i = 0; i < parameter_floats(0); i++) weights[i] *= 2;
  expect(malc_refresh(model) == MALC_OK, "refresh", model);
  expect(malc_forward(model, tokens, NULL, 1, 7, logits) == MALC_OK, "forward again", model);
  keep(&kept, logits, (int64_t)7 * vocabulary);
  tokens[0] = vocabulary;
  expect(malc_forward(model, tokens, NULL, 1, 1, logits) == MALC_BAD_ARGUMENT, "a token too large", model);

  for (int32_t index = 0; index < malc_parameter_count(); index++)
    keep(&kept, malc_parameter_address(model, index, MALC_DATA), parameter_floats(index));
  malc_destroy(model);
  free(logits);
  return kept;
}

int main(void) {
  for (int32_t training = 0; training <= TRAINS; training++) {
    const record one = run(1, training);
    for (int32_t threads = 2; threads <= 3; threads++) {
      const record more = run(threads, training);
      const size_t bytes = (size_t)one.count * sizeof(float);
      const bool same = more.count == one.count && memcmp(more.values, one.values, bytes) == 0;
      if (!same) printf("%d threads give other bits than one\n", (int)threads);
      free(more.values);
      if (!same) return 1;
    }
    free(one.values);
  }
  return 0;
}
